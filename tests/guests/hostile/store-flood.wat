  ;; Puts 10,000 values of 60,000 bytes into the store, each under a key of its own: 572 MiB.
  (import "tidegate:filter/store@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32 i32 i64 i32)))
  (data (i32.const 1024) "flood")
  (func $misdeed (local $n i32)
    (memory.fill (i32.const 8192) (i32.const 120) (i32.const 60000))
    (loop $round
      (i32.store (i32.const 1040) (local.get $n))
      ;; A key is a text: three letters.
      (i32.store8 (i32.const 1040) (i32.add (i32.const 32) (i32.rem_u (local.get $n) (i32.const 90))))
      (i32.store8 (i32.const 1041) (i32.add (i32.const 32) (i32.rem_u (i32.div_u (local.get $n) (i32.const 90)) (i32.const 90))))
      (i32.store8 (i32.const 1042) (i32.add (i32.const 32) (i32.div_u (local.get $n) (i32.const 8100))))
      (call $set (i32.const 1024) (i32.const 5) (i32.const 1040) (i32.const 3) (i32.const 8192) (i32.const 60000)
        (i64.const 0) (i32.const 16))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $round (i32.lt_u (local.get $n) (i32.const 10000)))))
