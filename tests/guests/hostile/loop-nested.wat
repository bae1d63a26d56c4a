  ;; Never returns: loops in a loop, each of which would end.
  (func $misdeed (local $n i32)
    (loop $outer
      (local.set $n (i32.const 1000))
      (loop $inner
        (local.set $n (i32.sub (local.get $n) (i32.const 1)))
        (br_if $inner (local.get $n)))
      (br $outer)))
