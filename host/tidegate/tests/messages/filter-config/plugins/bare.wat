;; A filter that brings a schema of its configuration.
(module
  (@custom "tidegate:manifest" "{\"name\":\"limit\",\"config-schema\":{\"type\":\"object\",\"required\":[\"burst\"],\"additionalProperties\":false,\"properties\":{\"by\":{\"enum\":[\"address\",\"consumer\"]},\"burst\":{\"type\":\"integer\",\"minimum\":1},\"rate\":{\"type\":\"string\",\"pattern\":\"^[0-9]+/min$\"},\"keys\":{\"type\":\"array\",\"items\":{\"type\":\"object\",\"required\":[\"sha256\"]}}}}}")
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "tidegate:filter/callbacks@0.1.0#configure") (param i32 i32) (result i32) (i32.const 16))
  (func (export "tidegate:filter/callbacks@0.1.0#log") (param i64)))
