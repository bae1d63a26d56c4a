  ;; Makes 10,000 HTTP calls, one after the other, to the upstream "called".
  (import "tidegate:filter/http-client@0.1.0" "call"
    (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (data (i32.const 1024) "calledGET/called")
  (func $misdeed (local $n i32)
    (local.set $n (i32.const 10000))
    (loop $round
      (global.set $free (i32.const 65536))
      (call $call (i32.const 1024) (i32.const 6) (i32.const 1030) (i32.const 3) (i32.const 1033) (i32.const 7)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 1024) (i32.const 16))
      (local.set $n (i32.sub (local.get $n) (i32.const 1)))
      (br_if $round (local.get $n))))
