  ;; Makes its table as large as it can, then traps.
  (table $table 1 funcref)
  (func $misdeed
    (loop $grow
      (br_if $grow (i32.ne (table.grow $table (ref.null func) (i32.const 10000)) (i32.const -1))))
    (unreachable))
