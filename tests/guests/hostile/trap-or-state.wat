  ;; Counts its exchanges in the field x-count, and traps in the tenth, twentieth ..: what is left of the instance that
  ;; trapped must never be seen again.
  (import "tidegate:filter/exchange@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32 i32)))
  (data (i32.const 1024) "x-count0")
  (global $count (mut i32) (i32.const 0))
  (func $misdeed
    (global.set $count (i32.add (global.get $count) (i32.const 1)))
    (if (i32.eq (global.get $count) (i32.const 10)) (then (unreachable)))
    (i32.store8 (i32.const 1031) (i32.add (i32.const 48) (global.get $count)))
    (call $set (i32.const 2) (i32.const 1024) (i32.const 7) (i32.const 1031) (i32.const 1) (i32.const 16)))
