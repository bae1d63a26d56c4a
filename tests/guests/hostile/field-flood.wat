  ;; Adds 100,000 fields, or with the letter b one field of a megabyte, and takes no for an answer.
  (import "tidegate:filter/exchange@0.1.0" "append" (func $append (param i32 i32 i32 i32 i32 i32)))
  (data (i32.const 1024) "x-flood")
  (func $misdeed (local $n i32) (local $part i32)
    (local.set $part
      (if (result i32) (i32.eq (global.get $phase) (i32.const 4)) (then (i32.const 2)) (else (i32.const 0))))
    (if (i32.eq (global.get $case) (i32.const 98))
      (then
        (drop (memory.grow (i32.const 16)))
        (memory.fill (i32.const 131072) (i32.const 120) (i32.const 1048576))
        (call $append (local.get $part) (i32.const 1024) (i32.const 7) (i32.const 131072) (i32.const 1048576)
          (i32.const 16))
        (return)))
    (local.set $n (i32.const 100000))
    (loop $round
      (call $append (local.get $part) (i32.const 1024) (i32.const 7) (i32.const 1024) (i32.const 7) (i32.const 16))
      (local.set $n (i32.sub (local.get $n) (i32.const 1)))
      (br_if $round (local.get $n))))
