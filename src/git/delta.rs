//! git's deltas: one object told as copies from another and what is new in it.

use std::collections::HashMap;

/// The unit in which equal parts are looked for.
const BLOCK: usize = 16;
/// Bases larger than this are only compared at their beginning and end: an index of them would take too much memory.
const INDEXED: usize = 4 << 20;
/// The most that one copy can say.
const MOST_COPIED: usize = 0xffff;
/// The most that one insertion can say.
const MOST_INSERTED: usize = 0x7f;

/// The delta that makes `target` from `base`; `None` if it would not be shorter than half of `target`.
pub(super) fn delta(base: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    let most = target.len() / 2;
    let prefix = equal(base.iter(), target.iter());
    let (base_rest, target_rest) = (base.get(prefix..)?, target.get(prefix..)?);
    let suffix = equal(base_rest.iter().rev(), target_rest.iter().rev());
    let middle = target_rest.get(..target_rest.len() - suffix)?;
    let mut out = Vec::new();
    size(&mut out, base.len());
    size(&mut out, target.len());
    copy(&mut out, 0, prefix);
    if middle.len() <= BLOCK || base.len() > INDEXED {
        if middle.len() > most {
            return None;
        }
        insert(&mut out, middle);
    } else {
        search(&mut out, base, middle, most)?;
    }
    copy(&mut out, base.len() - suffix, suffix);
    (out.len() < most).then_some(out)
}

fn equal<'b>(one: impl Iterator<Item = &'b u8>, other: impl Iterator<Item = &'b u8>) -> usize {
    one.zip(other).take_while(|(one, other)| one == other).count()
}

/// Tells `target` by what it has in common with `base`, wherever that is.
fn search(out: &mut Vec<u8>, base: &[u8], target: &[u8], most: usize) -> Option<()> {
    let mut index: HashMap<&[u8], usize> = HashMap::new();
    for (number, block) in base.chunks_exact(BLOCK).enumerate() {
        index.entry(block).or_insert(number * BLOCK);
    }
    // What lies between `told` and `at` was found nowhere so far.
    let (mut told, mut at) = (0, 0);
    while let Some(block) = target.get(at..at + BLOCK) {
        let Some(found) = index.get(block).copied() else {
            at += 1;
            if at - told > most {
                return None;
            }
            continue;
        };
        let before = equal(base.get(..found)?.iter().rev(), target.get(told..at)?.iter().rev());
        let after = equal(base.get(found..)?.iter(), target.get(at..)?.iter());
        insert(out, target.get(told..at - before)?);
        copy(out, found - before, before + after);
        at += after;
        told = at;
        if out.len() > most {
            return None;
        }
    }
    insert(out, target.get(told..)?);
    Some(())
}

/// A number in the form in which a delta names sizes.
fn size(out: &mut Vec<u8>, mut size: usize) {
    while size > 0x7f {
        out.push((size & 0x7f) as u8 | 0x80);
        size >>= 7;
    }
    out.push(size as u8);
}

fn copy(out: &mut Vec<u8>, mut from: usize, mut length: usize) {
    while length > 0 {
        let now = length.min(MOST_COPIED);
        let at = out.len();
        let mut which = 0x80;
        out.push(which);
        let bytes = [from, from >> 8, from >> 16, from >> 24, now, now >> 8].map(|part| (part & 0xff) as u8);
        for (bit, byte) in bytes.into_iter().enumerate().filter(|(_, byte)| *byte != 0) {
            which |= 1 << bit;
            out.push(byte);
        }
        if let Some(op) = out.get_mut(at) {
            *op = which;
        }
        from += now;
        length -= now;
    }
}

fn insert(out: &mut Vec<u8>, bytes: &[u8]) {
    for piece in bytes.chunks(MOST_INSERTED) {
        out.push(piece.len() as u8);
        out.extend_from_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    /// Applies a delta, as git's documentation of packs has it.
    fn apply(base: &[u8], delta: &[u8]) -> Vec<u8> {
        let mut bytes = delta.iter().copied();
        let mut number = || {
            let (mut value, mut shift) = (0, 0);
            loop {
                let byte = usize::from(bytes.next().unwrap());
                value |= (byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    return value;
                }
            }
        };
        assert_eq!(number(), base.len());
        let length = number();
        let mut out = Vec::new();
        while let Some(op) = bytes.next() {
            assert_ne!(op, 0);
            if op < 0x80 {
                out.extend(bytes.by_ref().take(usize::from(op)));
                continue;
            }
            let mut parts = [0usize; 7];
            for (bit, part) in parts.iter_mut().enumerate() {
                if op & (1 << bit) != 0 {
                    *part = usize::from(bytes.next().unwrap());
                }
            }
            let from = parts[0] | parts[1] << 8 | parts[2] << 16 | parts[3] << 24;
            let length = parts[4] | parts[5] << 8 | parts[6] << 16;
            out.extend_from_slice(&base[from..from + length]);
        }
        assert_eq!(out.len(), length);
        out
    }

    fn noise(length: usize, mut seed: u64) -> Vec<u8> {
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn what_is_appended_inserted_or_moved_is_told_in_a_few_bytes() {
        let old = noise(200_000, 1);
        let (left, right) = old.split_at(70_000);
        let appended = [&old[..], b"a line more\n"].concat();
        let inserted = [left, b"in the middle", right].concat();
        let moved = [right, b"-", left].concat();
        let twice = [left, right, left].concat();
        for (new, most) in [(&appended, 60), (&inserted, 60), (&moved, 60), (&twice, 60), (&old, 50)] {
            let delta = delta(&old, new).unwrap();
            assert!(delta.len() < most, "{} bytes", delta.len());
            assert!(apply(&old, &delta) == *new);
        }
        assert_eq!(delta(&old, &noise(200_000, 2)), None, "nothing in common");
        assert_eq!(delta(b"", b"something"), None);
    }

    proptest! {
        #[test]
        fn a_delta_makes_the_target(
            base in prop::collection::vec(0u8..4, 0..400),
            pieces in prop::collection::vec((any::<prop::sample::Index>(), 0usize..200, prop::collection::vec(any::<u8>(), 0..9)), 0..9),
        ) {
            let mut target = Vec::new();
            for (from, length, new) in pieces {
                let from = if base.is_empty() { 0 } else { from.index(base.len()) };
                target.extend_from_slice(&base[from..(from + length).min(base.len())]);
                target.extend(new);
            }
            if let Some(delta) = delta(&base, &target) {
                prop_assert!(delta.len() < target.len());
                prop_assert_eq!(apply(&base, &delta), target);
            }
        }
    }
}
