//! The half that evidence is made from, and the half that it is tested on.

use std::collections::BTreeMap;

/// A half of the labelled pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// Evidence is made from it.
    Fit,
    /// It is measured on this one, which it has not seen.
    Report,
}

/// The half of each file, given its picture's name and the hash of its bytes. Files of equal names or equal bytes come
/// into the same half, as do those joined by others. A bit of their smallest hash decides, so that most pictures stay where
/// they are when more come.
pub fn halves<'a>(files: &[(&'a str, &'a [u8; 32])]) -> Vec<Half> {
    let mut smallest: Vec<[u8; 32]> = files.iter().map(|&(_, hash)| *hash).collect();
    loop {
        let (mut by_name, mut by_hash) = (BTreeMap::new(), BTreeMap::new());
        for (&(name, hash), &found) in files.iter().zip(&smallest) {
            let least = |known: &mut [u8; 32]| *known = found.min(*known);
            by_name.entry(name).and_modify(least).or_insert(found);
            by_hash.entry(hash).and_modify(least).or_insert(found);
        }
        let joined: Vec<_> = files.iter().map(|(name, hash)| by_name[name].min(by_hash[hash])).collect();
        if joined == smallest {
            break;
        }
        smallest = joined;
    }
    smallest.iter().map(|hash| if hash[31] & 1 == 0 { Half::Fit } else { Half::Report }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bytes_hold_files_together() {
        let hash = |first: u8, last: u8| {
            let mut hash = [0; 32];
            (hash[0], hash[31]) = (first, last);
            hash
        };
        let (a, b, c, d) = (hash(1, 1), hash(2, 0), hash(3, 0), hash(4, 0));
        // x and y are joined by b, y and z by c; the smallest hash is a's.
        let files = [("z", &c), ("y", &c), ("y", &b), ("x", &b), ("x", &a), ("w", &d)];
        let expected = [Half::Report; 5].into_iter().chain([Half::Fit]).collect::<Vec<_>>();
        assert_eq!(halves(&files), expected);
        assert_eq!(halves(&[]), []);
    }
}
