  ;; Never returns, and is in a host function most of the time.
  (import "tidegate:filter/clock@0.1.0" "monotonic" (func $monotonic (result i64)))
  (import "tidegate:filter/random@0.1.0" "bytes" (func $random (param i32 i32)))
  (func $misdeed
    (loop $round
      (drop (call $monotonic))
      (global.set $free (i32.const 65536))
      (call $random (i32.const 4096) (i32.const 16))
      (br $round)))
