  ;; Keeps 1 KiB of every exchange, and never gives anything back.
  (global $kept (mut i32) (i32.const 131072))
  (func $misdeed
    (if (i32.ge_u (i32.add (global.get $kept) (i32.const 1024)) (i32.mul (memory.size) (i32.const 65536)))
      (then (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then (unreachable)))))
    (memory.fill (global.get $kept) (i32.const 7) (i32.const 1024))
    (global.set $kept (i32.add (global.get $kept) (i32.const 1024))))
