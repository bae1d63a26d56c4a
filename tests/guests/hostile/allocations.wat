  ;; An allocator that serves the configuration and then turns bad: it gives a 0, b the same place always, c what is not
  ;; aligned, d a place outside of memory, e a place that ends outside of it, f nothing ever (it loops), g a trap, and
  ;; h calls the host, which it must not.
  (import "tidegate:filter/exchange@0.1.0" "path" (func $path (param i32)))
  (import "tidegate:filter/exchange@0.1.0" "all" (func $all (param i32 i32)))
  (func $misdeed
    (call $path (i32.const 16))
    (call $all (i32.const 0) (i32.const 16)))
  (func $allocate (param $align i32) (param $size i32) (result i32)
    (local $case i32)
    (local.set $case (i32.sub (global.get $case) (i32.const 97)))
    (block $good (block $h (block $g (block $f (block $e (block $d (block $c (block $b (block $a
      (br_table $a $b $c $d $e $f $g $h $good (local.get $case)))
      (return (i32.const 0)))
      (return (i32.const 4096)))
      (return (i32.const 4097)))
      (return (i32.const -65536)))
      (return (i32.const 131068)))
      (loop $round (br $round)))
      (unreachable))
      (call $path (i32.const 16)))
    (global.set $free (i32.add (global.get $free) (i32.const 65536)))
    (i32.and (global.get $free) (i32.const 65528)))
