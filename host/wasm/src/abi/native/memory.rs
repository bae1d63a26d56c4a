//! A core module's memory as the canonical ABI lays it out: reading what the guest points to, and building what is
//! handed to it. Every pointer is checked, every length before anything is allocated. Knows no host function.

use std::fmt::{Display, Write as _};

use crate::fault::{Breach, breach};

/// Reads `length` bytes at `at`.
pub(super) fn bytes(memory: &[u8], at: u32, length: u32) -> wasmtime::Result<&[u8]> {
    slice(memory, at, length).ok_or_else(|| out_of_bounds(at, length))
}

/// The longest string that a guest may hand over, in bytes. What it means has closer bounds; this one keeps the host from
/// looking through megabytes first.
const MAX_TEXT: u32 = 1024 * 1024;

/// Reads a string.
pub(super) fn text(memory: &[u8], at: u32, length: u32) -> wasmtime::Result<&str> {
    let bytes = bytes(memory, at, length)?;
    if length > MAX_TEXT {
        return Err(breach(format!(
            "it handed over a string of {length} bytes, and may one of {MAX_TEXT}"
        )));
    }
    as_text(bytes)
}

/// Most strings are names of some letters, for which looking for other ones is a few steps, and reading them as UTF-8 many.
#[expect(
    unsafe_code,
    reason = "the standard library has no safe way from ASCII bytes to a string yet"
)]
fn as_text(bytes: &[u8]) -> wasmtime::Result<&str> {
    if bytes.is_ascii() {
        // SAFETY: every byte is ASCII, and what is ASCII is UTF-8.
        return Ok(unsafe { std::str::from_utf8_unchecked(bytes) });
    }
    std::str::from_utf8(bytes).map_err(|_| not_text())
}

/// Reads the beginning of a string, at most so many bytes of it, and no character in part.
pub(super) fn beginning(memory: &[u8], at: u32, length: u32, most: u32) -> wasmtime::Result<&str> {
    let whole = bytes(memory, at, length)?;
    let first = whole.get(..most as usize).unwrap_or(whole);
    match std::str::from_utf8(first) {
        Ok(text) => Ok(text),
        Err(error) if error.error_len().is_none() && first.len() < whole.len() => {
            let sound = first.get(..error.valid_up_to()).unwrap_or_default();
            std::str::from_utf8(sound).map_err(|_| not_text())
        }
        Err(_) => Err(not_text()),
    }
}

fn not_text() -> wasmtime::Error {
    breach("it handed over a string that is not UTF-8")
}

/// A list whose elements have `size` bytes and stand at multiples of `align`.
pub(super) fn list(
    memory: &[u8],
    at: u32,
    count: u32,
    size: u32,
    align: u32,
) -> wasmtime::Result<&[u8]> {
    if !at.is_multiple_of(align) {
        return Err(unaligned(at, align));
    }
    let length = count
        .checked_mul(size)
        .ok_or_else(|| out_of_bounds(at, u32::MAX))?;
    bytes(memory, at, length)
}

fn slice(memory: &[u8], at: u32, length: u32) -> Option<&[u8]> {
    let at = at as usize;
    memory.get(at..at.checked_add(length as usize)?)
}

fn out_of_bounds(at: u32, length: u32) -> wasmtime::Error {
    breach(format!(
        "it pointed to {length} bytes at {at:#x}, outside of its memory"
    ))
}

fn unaligned(at: u32, align: u32) -> wasmtime::Error {
    breach(format!(
        "it gave the address {at:#x}, which is no multiple of {align}"
    ))
}

/// Little-endian numbers at an offset. Offsets are the layouts' own, so what is missing reads as 0.
pub(super) fn number(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    u32::from_le_bytes(four.unwrap_or_default())
}

/// As [`number`], of 64 bits.
pub(super) fn long(bytes: &[u8], at: usize) -> u64 {
    let eight = bytes
        .get(at..at + 8)
        .and_then(|eight| eight.try_into().ok());
    u64::from_le_bytes(eight.unwrap_or_default())
}

/// Writes at an address that the guest gave for a result.
pub(super) fn put<const N: usize>(
    memory: &mut [u8],
    at: u32,
    align: u32,
    value: [u8; N],
) -> wasmtime::Result<()> {
    if !at.is_multiple_of(align) {
        return Err(unaligned(at, align));
    }
    let start = at as usize;
    let Some(place) = memory.get_mut(start..start.saturating_add(N)) else {
        return Err(out_of_bounds(at, u32::try_from(N).unwrap_or(u32::MAX)));
    };
    place.copy_from_slice(&value);
    Ok(())
}

/// The elements of a `list<tuple<string, list<u8>>>`, read as they are asked for. Stops at the first that points
/// outside; [`Pairs::finish`] tells.
pub(super) struct Pairs<'a> {
    memory: &'a [u8],
    rest: std::slice::ChunksExact<'a, u8>,
    broken: Option<wasmtime::Error>,
}

impl<'a> Pairs<'a> {
    pub(super) fn new(memory: &'a [u8], at: u32, count: u32) -> wasmtime::Result<Self> {
        Ok(Pairs {
            memory,
            rest: list(memory, at, count, 16, 4)?.chunks_exact(16),
            broken: None,
        })
    }

    /// Whether all that was read was in place.
    pub(super) fn finish(self) -> wasmtime::Result<()> {
        self.broken.map_or(Ok(()), Err)
    }

    fn pair(&self, element: &[u8]) -> wasmtime::Result<(&'a str, &'a [u8])> {
        let name = text(self.memory, number(element, 0), number(element, 4))?;
        let value = bytes(self.memory, number(element, 8), number(element, 12))?;
        Ok((name, value))
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let element = self.rest.next()?;
        match self.pair(element) {
            Ok(pair) => Some(pair),
            Err(error) => {
                self.broken = Some(error);
                self.rest = [].chunks_exact(16);
                None
            }
        }
    }
}

/// What a host function hands to the guest: an image of the result and of everything that it points to, built
/// first, placed block by block at addresses that the guest allocates, and copied over once. The buffers are used
/// again, so that an ordinary call allocates nothing here.
#[derive(Debug, Default)]
pub(super) struct Reply {
    image: Vec<u8>,
    blocks: Vec<Block>,
}

/// A run of bytes of the image that gets an address of its own.
#[derive(Clone, Copy, Debug)]
struct Block {
    from: usize,
    length: u32,
    align: u32,
    /// Where in the image its address is written. Meaningless for the first block, which the guest placed.
    pointer: usize,
    address: u32,
    /// Whether the bytes stand in the exchange's chunk and not in the image; `from` is then the chunk's offset.
    chunk: bool,
}

/// Buffers that grew past this are not kept.
const KEEP: usize = 64 * 1024;

impl Reply {
    /// Begins a result of `size` bytes at the address that the guest gave for it.
    pub(super) fn begin(&mut self, address: u32, size: u32, align: u32) {
        self.image.clear();
        self.blocks.clear();
        self.image.resize(size as usize, 0);
        self.blocks.push(Block {
            from: 0,
            length: size,
            align,
            pointer: 0,
            address,
            chunk: false,
        });
    }

    pub(super) fn put<const N: usize>(&mut self, at: usize, value: [u8; N]) {
        if let Some(place) = self.image.get_mut(at..at + N) {
            place.copy_from_slice(&value);
        }
    }

    /// A list of bytes whose pointer and length stand at `at`.
    pub(super) fn bytes(&mut self, at: usize, bytes: &[u8]) {
        let from = self.image.len();
        self.image.extend_from_slice(bytes);
        self.block(at, from, 1);
    }

    /// As [`Reply::bytes`], of what a value prints.
    pub(super) fn display(&mut self, at: usize, value: impl Display) {
        let from = self.image.len();
        // Writing into a vector does not fail.
        let _ = write!(Appending(&mut self.image), "{value}");
        self.block(at, from, 1);
    }

    /// A list of `count` elements whose pointer and length stand at `at`. Says where in the image it begins.
    pub(super) fn list(&mut self, at: usize, count: usize, size: usize, align: u32) -> usize {
        // Blocks of elements begin at a multiple of 8 only in the guest; the image needs no alignment.
        let from = self.image.len();
        self.image.resize(from + count * size, 0);
        self.block(at, from, align);
        self.put(
            at + 4,
            u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes(),
        );
        from
    }

    /// A list of `length` bytes of the exchange's chunk from `offset` on, copied without a detour.
    pub(super) fn chunk(&mut self, at: usize, offset: u32, length: u32) {
        self.put(at + 4, length.to_le_bytes());
        self.blocks.push(Block {
            from: offset as usize,
            length,
            align: 1,
            pointer: at,
            address: 0,
            chunk: true,
        });
    }

    fn block(&mut self, at: usize, from: usize, align: u32) {
        let length = u32::try_from(self.image.len() - from).unwrap_or(u32::MAX);
        self.put(at + 4, length.to_le_bytes());
        self.blocks.push(Block {
            from,
            length,
            align,
            pointer: at,
            address: 0,
            chunk: false,
        });
    }

    /// Size and alignment of the block that has the number `index`, counted from 1.
    pub(super) fn wanted(&self, index: usize) -> Option<(u32, u32)> {
        self.blocks
            .get(index)
            .map(|block| (block.length, block.align))
    }

    /// Notes the address that the guest gave to a block.
    pub(super) fn place(&mut self, index: usize, address: u32) -> wasmtime::Result<()> {
        let Some(block) = self.blocks.get_mut(index) else {
            return Ok(());
        };
        if !address.is_multiple_of(block.align) {
            return Err(breach(format!(
                "its cabi_realloc returned {address:#x}, which is no multiple of {}",
                block.align
            )));
        }
        block.address = address;
        let pointer = block.pointer;
        self.put(pointer, address.to_le_bytes());
        Ok(())
    }

    /// Copies everything over. `chunk` are the bytes of the exchange's chunk, from an offset on.
    pub(super) fn write<'a>(
        &mut self,
        memory: &mut [u8],
        chunk: impl Fn(u32, u32) -> &'a [u8],
    ) -> wasmtime::Result<()> {
        for (index, block) in self.blocks.iter().enumerate() {
            let bytes = if block.chunk {
                chunk(u32::try_from(block.from).unwrap_or(u32::MAX), block.length)
            } else {
                let to = block.from + block.length as usize;
                self.image.get(block.from..to).unwrap_or_default()
            };
            if index == 0 && !block.address.is_multiple_of(block.align) {
                return Err(unaligned(block.address, block.align));
            }
            let start = block.address as usize;
            match memory.get_mut(start..start.saturating_add(bytes.len())) {
                Some(place) => place.copy_from_slice(bytes),
                None if index == 0 => return Err(out_of_bounds(block.address, block.length)),
                None => {
                    return Err(breach(format!(
                        "its cabi_realloc returned {:#x} for {} bytes, outside of its memory",
                        block.address, block.length
                    )));
                }
            }
        }
        if self.image.capacity() > KEEP {
            self.image = Vec::new();
        }
        Ok(())
    }
}

struct Appending<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Appending<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// The breach of an enumeration's value that the contract does not have.
pub(super) fn no_such_value(of: &str, value: u32) -> wasmtime::Error {
    wasmtime::Error::new(Breach::new(format!("{value} is no value of `{of}`")))
}
