//! The upstream of `cargo xtask bench`: one thread, one epoll, HTTP/1.1 kept alive, answers made before the first
//! request, because a slow upstream would be measured in place of the proxy. It must not know who asks.
//!
//! It prints its port on a line of its own. `GET /size/N` is answered with N bytes for the sizes of [`SIZES`], a POST
//! with 128 bytes once its body has been read, `GET /count` with the number of answers so far, that one not counted.
//! What it does not know it refuses with a status that spoils the measurement.

#![allow(
    clippy::print_stdout,
    reason = "the port is told to the program that started it"
)]

mod connection;

use std::collections::HashMap;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context as _, Result};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::connection::{Answers, Connection, Next};

/// Bodies that can be asked for, in bytes.
const SIZES: [usize; 3] = [128, 10 * 1024, 1024 * 1024];
/// Events taken at once.
const EVENTS: usize = 256;

fn main() -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port on 127.0.0.1")?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?.port());
    serve(&listener, &Answers::new(&SIZES))
}

fn serve(listener: &TcpListener, answers: &Answers) -> Result<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let own = u64::try_from(listener.as_raw_fd())?;
    epoll::add(&epoll, listener, EventData::new_u64(own), EventFlags::IN)?;
    let mut connections: HashMap<u64, Connection> = HashMap::new();
    let mut events = Vec::with_capacity(EVENTS);
    let mut served = 0_u64;
    loop {
        events.clear();
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let key = event.data.u64();
            if key == own {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let key = u64::try_from(stream.as_raw_fd())?;
                    epoll::add(&epoll, &stream, EventData::new_u64(key), EventFlags::IN)?;
                    connections.insert(key, Connection::new(stream));
                }
                continue;
            }
            let Some(connection) = connections.get_mut(&key) else {
                continue;
            };
            let was_writing = connection.is_writing();
            match connection.go_on(answers, &mut served) {
                // Closing the socket takes it out of the epoll.
                Next::Close => drop(connections.remove(&key)),
                Next::Wait if connection.is_writing() != was_writing => {
                    let interest = if was_writing {
                        EventFlags::IN
                    } else {
                        EventFlags::OUT
                    };
                    let data = EventData::new_u64(key);
                    epoll::modify(&epoll, connection.stream().as_fd(), data, interest)?;
                }
                Next::Wait => {}
            }
        }
    }
}
