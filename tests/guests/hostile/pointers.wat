  ;; Host calls with pointers and lengths that lead outside of memory, each by its letter. The memory has 131072 bytes.
  (import "tidegate:filter/exchange@0.1.0" "get" (func $get (param i32 i32 i32 i32)))
  (import "tidegate:filter/exchange@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32 i32)))
  (import "tidegate:filter/exchange@0.1.0" "answer" (func $answer (param i32 i32 i32 i32 i32 i32)))
  (import "tidegate:filter/exchange@0.1.0" "method" (func $method (param i32)))
  (import "tidegate:filter/exchange@0.1.0" "set-path" (func $set-path (param i32 i32 i32)))
  (import "tidegate:filter/log@0.1.0" "write" (func $write (param i32 i32 i32)))
  (import "tidegate:filter/metrics@0.1.0" "histogram"
    (func $histogram (param i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (data (i32.const 1024) "name")
  (func $misdeed
    (local $case i32)
    (local.set $case (i32.sub (global.get $case) (i32.const 97)))
    (block $z (block $l (block $k (block $j (block $i (block $h (block $g (block $f (block $e (block $d (block $c
    (block $b (block $a
      (br_table $a $b $c $d $e $f $g $h $i $j $k $l $z (local.get $case)))
      ;; a: a name that ends past the end
      (call $get (i32.const 0) (i32.const 131000) (i32.const 4000) (i32.const 16)) (return))
      ;; b: a length that is negative
      (call $get (i32.const 0) (i32.const 1024) (i32.const -1) (i32.const 16)) (return))
      ;; c: a pointer and a length that come round to the beginning
      (call $set (i32.const 0) (i32.const -16) (i32.const 32) (i32.const 1024) (i32.const 1) (i32.const 16)) (return))
      ;; d: a result past the end
      (call $method (i32.const 131072)) (return))
      ;; e: a result half past the end
      (call $method (i32.const 131068)) (return))
      ;; f: a result that is not aligned
      (call $method (i32.const 17)) (return))
      ;; g: a list of two thousand million fields
      (call $answer (i32.const 200) (i32.const 0) (i32.const 0x7fffffff) (i32.const 0) (i32.const 0) (i32.const 16)) (return))
      ;; h: a body of 4 GiB
      (call $answer (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 16)) (return))
      ;; i: a list of fields whose pointers lead outside
      (i32.store (i32.const 2048) (i32.const -8)) (i32.store (i32.const 2052) (i32.const 64))
      (call $answer (i32.const 200) (i32.const 2048) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 16)) (return))
      ;; j: a text that is no UTF-8
      (i32.store (i32.const 2048) (i32.const 0xffc0feff))
      (call $set-path (i32.const 2048) (i32.const 4) (i32.const 16)) (return))
      ;; k: a log line of 4 GiB
      (call $write (i32.const 2) (i32.const 0) (i32.const -1)) (return))
      ;; l: buckets without end
      (call $histogram (i32.const 1024) (i32.const 4) (i32.const 1024) (i32.const 4) (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 0x1fffffff) (i32.const 16)) (return)))
