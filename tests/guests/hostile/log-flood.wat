  ;; Logs 20,000 lines of 64 KiB that would like to be several lines and to paint the terminal.
  (import "tidegate:filter/log@0.1.0" "write" (func $write (param i32 i32 i32)))
  (data (i32.const 1024) "flood\0a{\22level\22:\22ERROR\22,\22message\22:\22forged\22}\0a\1b[31mred\0d")
  (func $misdeed (local $n i32)
    (memory.fill (i32.const 1080) (i32.const 120) (i32.const 64000))
    (local.set $n (i32.const 20000))
    (loop $round
      (call $write (i32.const 2) (i32.const 1024) (i32.const 64000))
      (local.set $n (i32.sub (local.get $n) (i32.const 1)))
      (br_if $round (local.get $n))))
