//! Damaged pages: whatever they hold, decoding ends, soon, and with an answer
//! or an error. Starts from two real states of a database (tests/data/rows.py)
//! with small pages, so that there are deep trees and long chains in it.
//!
//! `FUZZ_SEED` repeats a run, `FUZZ_EXECUTIONS` and `FUZZ_SECONDS` bound it.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use replica::internal::{Error, Known, Pages, Result, decode, plan};

const PAGE: usize = 512;
const BASE: &[u8] = include_bytes!("data/rows-base.db");
const NEW: &[u8] = include_bytes!("data/rows-new.db");

struct States {
    base: Vec<u8>,
    new: Vec<u8>,
    changed: Vec<u32>,
}

impl States {
    fn new(base: Vec<u8>, new: Vec<u8>) -> States {
        let page =
            |file: &[u8], at: usize| file.get(at * PAGE..(at + 1) * PAGE).map(<[u8]>::to_vec);
        let pages = 0..new.len() / PAGE;
        let changed = pages.filter(|&at| page(&base, at) != page(&new, at));
        States {
            changed: changed.map(|at| at as u32 + 1).collect(),
            base,
            new,
        }
    }
}

fn page(file: &[u8], pgno: u32) -> Result<Cow<'_, [u8]>> {
    let at = (pgno as usize - 1) * PAGE;
    let page = file.get(at..at + PAGE).map(Cow::Borrowed);
    page.ok_or_else(|| Error::Corrupt("past the end".to_string()))
}

impl Pages for States {
    fn before(&self, pgno: u32) -> Result<Cow<'_, [u8]>> {
        page(&self.base, pgno)
    }
    fn after(&self, pgno: u32) -> Result<Cow<'_, [u8]>> {
        page(&self.new, pgno)
    }
    fn changed(&self) -> &[u32] {
        &self.changed
    }
    fn size_before(&self) -> u32 {
        (self.base.len() / PAGE) as u32
    }
    fn size_after(&self) -> u32 {
        (self.new.len() / PAGE) as u32
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

fn damage(random: &mut Random, file: &mut Vec<u8>, times: usize) {
    for _ in 0..times {
        let pages = file.len() / PAGE;
        let at = random.below(pages) * PAGE;
        match random.below(10) {
            // A bit, or a byte, anywhere.
            0 | 1 => file[at + random.below(PAGE)] ^= 1 << random.below(8),
            2 => file[at + random.below(PAGE)] = random.next() as u8,
            // The b-tree header and the first cell pointers.
            3 | 4 => file[at + random.below(24)] = random.next() as u8,
            // A page number where there may be one.
            5 | 6 => {
                let pgno = (random.below(pages + 2) as u32).to_be_bytes();
                let places = [0, 8, random.below(PAGE - 4)];
                let place = at + places[random.below(3)];
                file[place..place + 4].copy_from_slice(&pgno);
            }
            // One page in another's place.
            7 => {
                let from = random.below(pages) * PAGE;
                file.copy_within(from..from + PAGE, at);
            }
            8 => file[at..at + PAGE].fill(0),
            _ if random.below(20) == 0 => file.truncate(at.max(PAGE)),
            _ => file[random.below(100)] ^= 1 << random.below(8),
        }
    }
}

fn run(known: Option<&Known>, states: &States) -> Result<usize> {
    let mut known = match known {
        Some(known) => known.clone(),
        None => Known::load(states)?,
    };
    let decoded = decode(&known, states)?;
    let statements = plan(&decoded)?.len();
    known.advance(decoded.step)?;
    Ok(statements)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn damaged_pages_are_survived() {
    let since_epoch = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = number("FUZZ_SEED").unwrap_or(since_epoch).max(1);
    let executions = number("FUZZ_EXECUTIONS").unwrap_or(20_000);
    let limit = Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(20));
    println!("FUZZ_SEED={seed}");
    let sound = States::new(BASE.to_vec(), NEW.to_vec());
    let known = Known::load(&sound).unwrap();
    let expected = run(Some(&known), &sound).unwrap();
    assert!(expected > 50, "{expected} statements");

    let (mut random, started) = (Random(seed), Instant::now());
    let (mut done, mut answers, mut slowest) = (0, 0, Duration::ZERO);
    while done < executions && started.elapsed() < limit {
        let state = random.0;
        let (mut base, mut new) = (BASE.to_vec(), NEW.to_vec());
        let times = 1 + random.below(6);
        let base_is_sound = random.below(2) == 0;
        damage(&mut random, &mut new, times);
        if !base_is_sound {
            damage(&mut random, &mut base, times);
        }
        let states = States::new(base, new);
        let from = Instant::now();
        let ended = std::panic::catch_unwind(|| run(base_is_sound.then_some(&known), &states));
        let Ok(ended) = ended else {
            panic!("a panic; FUZZ_SEED={state} FUZZ_EXECUTIONS=1 repeats it");
        };
        slowest = slowest.max(from.elapsed());
        assert!(
            from.elapsed() < Duration::from_secs(5),
            "endless; FUZZ_SEED={state} FUZZ_EXECUTIONS=1 repeats it"
        );
        answers += u64::from(ended.is_ok());
        done += 1;
    }
    println!("{done} executions, {answers} with an answer, the slowest took {slowest:?}");
}
