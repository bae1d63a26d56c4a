  ;; Never returns, and has the machine fill and copy as much memory as it may have.
  (func $misdeed
    (drop (memory.grow (i32.const 512)))
    (loop $round
      (memory.fill (i32.const 131072) (i32.const 1) (i32.const 33554432))
      (memory.copy (i32.const 131073) (i32.const 131072) (i32.const 33554431))
      (br $round)))
