//! Pages on their way from the network to the files, side by side.

use crate::wal::{PAGE_SIZE, Page};

#[derive(Default)]
pub struct Chunk {
    pgnos: Vec<u32>,
    bytes: Vec<u8>,
}

impl Chunk {
    pub fn with_capacity(pages: usize) -> Chunk {
        Chunk {
            pgnos: Vec::with_capacity(pages),
            bytes: Vec::with_capacity(pages * PAGE_SIZE),
        }
    }

    pub fn push(&mut self, pgno: u32, page: &Page) {
        self.pgnos.push(pgno);
        self.bytes.extend_from_slice(page);
    }

    pub fn len(&self) -> usize {
        self.pgnos.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &Page)> {
        self.pgnos.iter().copied().zip(self.bytes.as_chunks().0)
    }

    /// Pages that follow each other in the database, at most `most` of them at
    /// a time: the first one's number, and their bytes.
    pub fn runs(&self, most: usize) -> impl Iterator<Item = (u32, &[u8])> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let first = *self.pgnos.get(at)?;
            let rest = self.pgnos[at..].iter().take(most);
            let follow =
                |(i, pgno): &(usize, &u32)| u64::from(**pgno) == u64::from(first) + *i as u64;
            let count = rest.enumerate().take_while(follow).count();
            let bytes = &self.bytes[at * PAGE_SIZE..(at + count) * PAGE_SIZE];
            at += count;
            Some((first, bytes))
        })
    }
}

impl FromIterator<(u32, Box<Page>)> for Chunk {
    fn from_iter<I: IntoIterator<Item = (u32, Box<Page>)>>(pages: I) -> Chunk {
        let mut chunk = Chunk::default();
        pages
            .into_iter()
            .for_each(|(pgno, page)| chunk.push(pgno, &page));
        chunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_every_page_once() {
        let mut chunk = Chunk::with_capacity(4);
        for pgno in [5, 6, 7, 8, 2, 9, 10, u32::MAX] {
            chunk.push(pgno, &[pgno as u8; PAGE_SIZE]);
        }
        let runs: Vec<_> = chunk
            .runs(3)
            .map(|(first, bytes)| (first, bytes.len() / PAGE_SIZE))
            .collect();
        assert_eq!(runs, [(5, 3), (8, 1), (2, 1), (9, 2), (u32::MAX, 1)]);
        let bytes: Vec<u8> = chunk
            .runs(3)
            .flat_map(|(_, bytes)| bytes.to_vec())
            .collect();
        assert!(
            bytes
                .chunks(PAGE_SIZE)
                .zip(chunk.iter())
                .all(|(a, (_, b))| a == b)
        );
        assert_eq!(
            chunk.iter().map(|(pgno, _)| pgno).sum::<u32>(),
            46u32.wrapping_add(u32::MAX).wrapping_add(1)
        );
        assert_eq!(Chunk::default().runs(3).count(), 0);
    }
}
