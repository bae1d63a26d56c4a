  ;; Makes a piece of a body longer and longer, without end.
  (import "tidegate:filter/body@0.1.0" "append" (func $append (param i32 i32)))
  (func $misdeed
    (loop $round
      (call $append (i32.const 0) (i32.const 65536))
      (br $round)))
