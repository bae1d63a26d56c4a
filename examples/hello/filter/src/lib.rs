//! Greets every client: the smallest filter that does something.

use tidegate_sdk::prelude::*;

struct Hello;

#[filter(name = "hello")]
impl Filter for Hello {
    fn response_head(&self, response: &mut ResponseHead, _: &mut ()) -> Flow {
        let _ = response.set("x-hello", "from tidegate");
        Flow::Continue
    }
}
