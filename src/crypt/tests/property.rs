//! Every layout against a plain file.

use super::super::grid::Grid;
use super::super::header::Layout;
use super::super::journal::{Begin, Journal};
use super::*;

struct GridFile(Grid, Option<Layout>);
impl File for GridFile {
    fn read(&mut self, raw: &Memory, buf: &mut [u8], at: u64) -> Result<usize> {
        self.0.read(&sealer(), raw, buf, at)
    }
    fn write(&mut self, raw: &Memory, buf: &[u8], at: u64) -> Result<()> {
        self.0.write(&sealer(), raw, buf, at)
    }
    fn truncate(&mut self, raw: &Memory, to: u64) -> Result<()> {
        self.0.truncate(&sealer(), raw, to)
    }
    fn size(&mut self, raw: &Memory) -> Result<u64> {
        self.0.size(raw)
    }
    fn reopen(&mut self) {
        if let Some(layout) = self.1 {
            self.0 = Grid::shared(layout, None);
        }
    }
}

struct JournalFile(Journal, Begin);
impl File for JournalFile {
    fn read(&mut self, raw: &Memory, buf: &mut [u8], at: u64) -> Result<usize> {
        self.0.read(&sealer(), raw, buf, at)
    }
    fn write(&mut self, raw: &Memory, buf: &[u8], at: u64) -> Result<()> {
        self.0.write(&sealer(), raw, buf, at, self.1)
    }
    fn truncate(&mut self, raw: &Memory, to: u64) -> Result<()> {
        self.0.truncate(&sealer(), raw, to)
    }
    fn size(&mut self, raw: &Memory) -> Result<u64> {
        self.0.size(&sealer(), raw)
    }
    fn reopen(&mut self) {
        self.0 = Journal::new();
    }
}

/// Random reads, writes, truncations and changes of the handle: as a plain file.
fn behaves_as_a_plain_file(seed: u64, aligned: u64, file: &mut dyn File) {
    let (mut rng, raw, mut model) = (Rng(seed), Memory::default(), Vec::<u8>::new());
    let mut seen = Vec::new();
    for step in 0..1500 {
        let far = rng.below(10) == 0;
        let at = rng.below(if far { 60_000 } else { model.len() as u64 + 1 });
        let at = if rng.below(2) == 0 {
            at / aligned * aligned
        } else {
            at
        };
        let len = match rng.below(4) {
            0 => rng.below(40),
            1 => aligned,
            2 => aligned * (1 + rng.below(8)),
            _ => rng.below(9000),
        } as usize;
        match rng.below(12) {
            0..=5 => {
                let data = rng.bytes(len);
                file.write(&raw, &data, at).unwrap();
                if len > 0 {
                    let size = model.len().max(at as usize + len);
                    model.resize(size, 0);
                    model[at as usize..][..len].copy_from_slice(&data);
                    seen.push(data);
                }
            }
            6 => {
                // SQLite never makes a file longer this way but by a little.
                let to = at.min(model.len() as u64 + 5000);
                file.truncate(&raw, to).unwrap();
                model.resize(to as usize, 0);
            }
            7 => file.reopen(),
            _ => {
                let mut buf = vec![0xaa; len];
                let have = model.len().saturating_sub(at as usize).min(len);
                let got = file.read(&raw, &mut buf, at).unwrap();
                assert_eq!(
                    got,
                    have,
                    "step {step}: read {len} at {at} of {}",
                    model.len()
                );
                let mut expected = vec![0; len];
                let from = model.len().min(at as usize);
                expected[..have].copy_from_slice(&model[from..][..have]);
                assert!(buf == expected, "step {step}: read {len} at {at}");
            }
        }
        assert_eq!(file.size(&raw).unwrap(), model.len() as u64, "step {step}");
    }
    // Nothing of it is in the raw bytes.
    let raw = raw.0.into_inner();
    for data in seen.iter().filter(|d| d.len() >= 16).take(200) {
        assert!(!raw.windows(16).any(|w| w == &data[..16]));
    }
}

#[test]
fn databases_and_temporary_files_behave_as_plain_files() {
    for seed in 1..6 {
        for unit in [512, 4096] {
            behaves_as_a_plain_file(seed, unit as u64, &mut GridFile(Grid::alone(unit), None));
            for spaced in [false, true] {
                let layout = Layout { unit, spaced };
                let shared = Grid::shared(layout, None);
                behaves_as_a_plain_file(seed, unit as u64, &mut GridFile(shared, Some(layout)));
            }
        }
        let path = format!("property-{seed}");
        let vault = vault(&path, RAW_KEY);
        behaves_as_a_plain_file(seed, 4096, &mut DbFile::new(vault));
    }
}

#[test]
fn journals_behave_as_plain_files() {
    for seed in 1..6 {
        for spaced in [false, true] {
            let begin = Begin {
                first: false,
                spaced,
            };
            behaves_as_a_plain_file(seed, 512, &mut JournalFile(Journal::new(), begin));
        }
    }
}
