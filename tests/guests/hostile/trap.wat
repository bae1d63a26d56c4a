  ;; Traps: a says so, b divides by zero, c calls a function of another type, d reads past the end of its memory,
  ;; e converts what is no number.
  (type $other (func (param i64) (result f32)))
  (table funcref (elem $misdeed))
  (func $misdeed
    (if (i32.eq (global.get $case) (i32.const 97)) (then (unreachable)))
    (if (i32.eq (global.get $case) (i32.const 98)) (then (drop (i32.div_u (i32.const 1) (global.get $zero)))))
    (if (i32.eq (global.get $case) (i32.const 99))
      (then (drop (call_indirect (type $other) (i64.const 0) (i32.const 0)))))
    (if (i32.eq (global.get $case) (i32.const 100)) (then (drop (i32.load (i32.const -4)))))
    (if (i32.eq (global.get $case) (i32.const 101))
      (then (drop (i32.trunc_f64_s (f64.div (f64.const 0) (f64.const 0)))))))
  (global $zero (mut i32) (i32.const 0))
