  ;; Takes all the memory that it can get, and writes to every page of it; then a goes on growing without end, b traps,
  ;; c returns.
  (func $misdeed (local $at i32)
    (loop $grow (br_if $grow (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
    (loop $touch
      (i32.store8 (local.get $at) (i32.const 1))
      (local.set $at (i32.add (local.get $at) (i32.const 4096)))
      (br_if $touch (i32.lt_u (local.get $at) (i32.mul (memory.size) (i32.const 65536)))))
    (if (i32.eq (global.get $case) (i32.const 97))
      (then (loop $more (drop (memory.grow (i32.const 1))) (br $more))))
    (if (i32.eq (global.get $case) (i32.const 98)) (then (unreachable)))
    ;; The frame's memory is as it was again, and the next exchange finds it.
    (i32.store8 (i32.const 4096) (i32.const 0)))
