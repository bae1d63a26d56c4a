  ;; Answers as they must not be given: a with a field that splits, b with a status that there is not, c twice and then
  ;; going on, d with a length of its own, e with 204 and a body.
  (import "tidegate:filter/exchange@0.1.0" "answer" (func $answer (param i32 i32 i32 i32 i32 i32)))
  (data (i32.const 1024) "x-split")
  (data (i32.const 1040) "a\0d\0a\0d\0aHTTP/1.1 200 OK\0d\0acontent-length: 0\0d\0a\0d\0a")
  (data (i32.const 1104) "content-length")
  (data (i32.const 1120) "1")
  (data (i32.const 1136) "first")
  (data (i32.const 1152) "second")
  (func $field (param i32 i32 i32 i32)
    (i32.store (i32.const 2048) (local.get 0)) (i32.store (i32.const 2052) (local.get 1))
    (i32.store (i32.const 2056) (local.get 2)) (i32.store (i32.const 2060) (local.get 3)))
  (func $misdeed
    (global.set $flow (i32.const 2))
    (if (i32.eq (global.get $case) (i32.const 97)) (then
      (call $field (i32.const 1024) (i32.const 7) (i32.const 1040) (i32.const 41))
      (call $answer (i32.const 200) (i32.const 2048) (i32.const 1) (i32.const 1136) (i32.const 5) (i32.const 16))))
    (if (i32.eq (global.get $case) (i32.const 98)) (then
      (call $answer (i32.const 999) (i32.const 0) (i32.const 0) (i32.const 1136) (i32.const 5) (i32.const 16))))
    (if (i32.eq (global.get $case) (i32.const 99)) (then
      (call $answer (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 1136) (i32.const 5) (i32.const 16))
      (call $answer (i32.const 201) (i32.const 0) (i32.const 0) (i32.const 1152) (i32.const 6) (i32.const 16))
      (global.set $flow (i32.const 0))))
    (if (i32.eq (global.get $case) (i32.const 100)) (then
      (call $field (i32.const 1104) (i32.const 14) (i32.const 1120) (i32.const 1))
      (call $answer (i32.const 200) (i32.const 2048) (i32.const 1) (i32.const 1136) (i32.const 5) (i32.const 16))))
    (if (i32.eq (global.get $case) (i32.const 101)) (then
      (call $answer (i32.const 204) (i32.const 0) (i32.const 0) (i32.const 1136) (i32.const 5) (i32.const 16)))))
