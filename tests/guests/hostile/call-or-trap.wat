  ;; Waits for an HTTP call to the upstream "called", unless the request has the field x-trap: then it traps.
  (import "tidegate:filter/http-client@0.1.0" "call"
    (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "tidegate:filter/exchange@0.1.0" "get" (func $get (param i32 i32 i32 i32)))
  (data (i32.const 1024) "calledGET/calledx-trap")
  (func $misdeed
    (call $get (i32.const 0) (i32.const 1040) (i32.const 6) (i32.const 16))
    (if (i32.load8_u (i32.const 16)) (then (unreachable)))
    (call $call (i32.const 1024) (i32.const 6) (i32.const 1030) (i32.const 3) (i32.const 1033) (i32.const 7)
      (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 60000) (i32.const 1024) (i32.const 16)))
