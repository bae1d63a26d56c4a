  ;; Values that do not exist: a a part, b a log level, c a flow, d an answer that was never given.
  (import "tidegate:filter/exchange@0.1.0" "count" (func $count (param i32) (result i32)))
  (import "tidegate:filter/log@0.1.0" "write" (func $write (param i32 i32 i32)))
  (func $misdeed
    (if (i32.eq (global.get $case) (i32.const 97)) (then (drop (call $count (i32.const 77)))))
    (if (i32.eq (global.get $case) (i32.const 98)) (then (call $write (i32.const -1) (i32.const 0) (i32.const 0))))
    (if (i32.eq (global.get $case) (i32.const 99)) (then (global.set $flow (i32.const 99))))
    (if (i32.eq (global.get $case) (i32.const 100)) (then (global.set $flow (i32.const 2)))))
