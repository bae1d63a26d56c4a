//! The token buckets of this process, exact across its workers: each decision is taken under the lock of the bucket's
//! part. What a decision is stands in `bucket`.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use tidegate_core::clock::Clock;
use tidegate_core::limiter::{
    Bucket, Demand, Entry, Level, Limiter, LimiterError, MAX_DEMANDS, Permit, Place, Verdict,
};

use super::Sharded;
use super::bucket::{Act, Held, Now, Shape};
use super::in_flight::InFlight;

const SHARDS: usize = 64;
/// Buckets that all parts of one place hold together, unless told otherwise; about 150 bytes each.
const MAX_BUCKETS: usize = 1024 * 1024;
/// How long a part that found no full bucket to throw out does not look again, in nanoseconds.
const LOOK_AGAIN: u64 = 100_000_000;
/// Shapes for which one part keeps buckets that keys share, and how many of them for each.
const MAX_SHAPES: usize = 32;
const SHARED_BUCKETS: usize = 256;

/// All token buckets of the process, and its requests in flight.
#[derive(Debug)]
pub struct TokenBuckets {
    clock: Arc<dyn Clock>,
    local: Buckets,
    shared: Buckets,
    in_flight: [InFlight; 2],
}

/// The buckets of one place. One that is full is the same as one that was never there, so those are thrown out when
/// there are too many, and no others: nobody gets his bucket back by making others. Keys for which there is no room share
/// buckets by their hash, which can only be stricter than one of their own.
#[derive(Debug)]
struct Buckets {
    shards: Sharded<Shard>,
    /// Buckets that one part may hold.
    bound: usize,
}

type Space = HashMap<Box<str>, Held>;

#[derive(Debug, Default)]
struct Shard {
    spaces: HashMap<Box<str>, Space>,
    buckets: usize,
    /// When it is worth while to look for full buckets again.
    look_at: u64,
    /// Buckets that keys share, by shape.
    overflow: HashMap<(Box<str>, Shape), Box<[Held]>>,
}

impl TokenBuckets {
    /// No buckets yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::bounded(clock, MAX_BUCKETS)
    }

    /// No buckets yet, and never more than so many in each place.
    pub fn bounded(clock: Arc<dyn Clock>, buckets: usize) -> Self {
        let buckets = || Buckets {
            shards: Sharded::new(SHARDS),
            bound: buckets.div_ceil(SHARDS).max(1),
        };
        TokenBuckets {
            clock,
            local: buckets(),
            shared: buckets(),
            in_flight: [InFlight::new(), InFlight::new()],
        }
    }

    fn place(&self, place: Place) -> &Buckets {
        match place {
            Place::Local => &self.local,
            Place::Shared => &self.shared,
        }
    }

    /// The clocks that a shape's decisions need.
    fn now(&self, shape: Shape) -> Now {
        Now {
            steady: self.clock.monotonic(),
            wall: match shape {
                Shape::Quota { .. } => self.clock.wall(),
                Shape::Refilling { .. } => 0,
            },
        }
    }

    fn act(
        &self,
        place: Place,
        space: &str,
        key: &str,
        shape: Shape,
        act: Act,
    ) -> Result<Level, LimiterError> {
        let buckets = self.place(place);
        let hash = buckets.shards.hash(space, key);
        let mut shard = buckets.shards.part(hash).ok_or(LimiterError::Unavailable)?;
        let now = self.now(shape);
        let step = Step {
            space,
            key,
            hash,
            shape,
        };
        shard.act(step, now, act, buckets.bound).map(|done| done.0)
    }
}

impl Limiter for TokenBuckets {
    fn take(&self, space: &str, key: &str, tokens: u32, rate: f64, burst: u32) -> Verdict {
        let never = Verdict {
            retry_after: u64::MAX,
            ..Verdict::default()
        };
        let Some(shape) = Shape::of_rate(rate, burst) else {
            return never;
        };
        let act = Act::Take(u64::from(tokens));
        match self.act(Place::Local, space, key, shape, act) {
            Ok(level) => Verdict {
                allowed: level.allowed,
                remaining: u32::try_from(level.remaining).unwrap_or(u32::MAX),
                retry_after: level.retry_after,
                reset_after: level.reset_after,
            },
            Err(_) => never,
        }
    }

    fn try_take(
        &self,
        place: Place,
        space: &str,
        demand: &Demand<'_>,
    ) -> Result<Level, LimiterError> {
        let shape = Shape::of(&demand.bucket);
        self.act(place, space, demand.key, shape, Act::Take(demand.tokens))
    }

    fn peek(&self, place: Place, space: &str, demand: &Demand<'_>) -> Result<Level, LimiterError> {
        let shape = Shape::of(&demand.bucket);
        self.act(place, space, demand.key, shape, Act::Peek(demand.tokens))
    }

    fn take_all(
        &self,
        place: Place,
        space: &str,
        demands: &[Demand<'_>],
    ) -> Result<Vec<Level>, LimiterError> {
        if demands.len() > MAX_DEMANDS {
            return Err(LimiterError::TooLarge);
        }
        let buckets = self.place(place);
        let steps: Vec<Step<'_>> = demands
            .iter()
            .map(|demand| Step {
                space,
                key: demand.key,
                hash: buckets.shards.hash(space, demand.key),
                shape: Shape::of(&demand.bucket),
            })
            .collect();
        let mut locked = Locked::of(&buckets.shards, &steps)?;
        let now = Now {
            steady: self.clock.monotonic(),
            wall: self.clock.wall(),
        };
        let mut levels = Vec::with_capacity(steps.len());
        let mut before = Vec::with_capacity(steps.len());
        let mut failed = None;
        for (step, demand) in steps.iter().zip(demands) {
            let acted = locked
                .shard(step.hash)
                .and_then(|shard| shard.act(*step, now, Act::Take(demand.tokens), buckets.bound));
            match acted {
                Ok((level, held)) => {
                    levels.push(level);
                    before.push(held);
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        if failed.is_none() && levels.iter().all(|level| level.allowed) {
            return Ok(levels);
        }
        for (step, held) in steps.iter().zip(&before).rev() {
            locked.shard(step.hash)?.restore(*step, *held);
        }
        if let Some(error) = failed {
            return Err(error);
        }
        for (step, level) in steps.iter().zip(&mut levels) {
            let shard = locked.shard(step.hash)?;
            let (as_it_is, _) = shard.act(*step, now, Act::Peek(0), buckets.bound)?;
            level.remaining = as_it_is.remaining;
            level.reset_after = as_it_is.reset_after;
        }
        Ok(levels)
    }

    fn charge(
        &self,
        place: Place,
        space: &str,
        key: &str,
        tokens: i64,
        bucket: &Bucket,
    ) -> Result<Level, LimiterError> {
        let act = if tokens < 0 {
            Act::GiveBack(tokens.unsigned_abs())
        } else {
            Act::Charge(tokens.unsigned_abs())
        };
        self.act(place, space, key, Shape::of(bucket), act)
    }

    fn enter(&self, place: Place, space: &str, key: &str, limit: u32) -> (Entry, Option<Permit>) {
        let [local, shared] = &self.in_flight;
        match place {
            Place::Local => local.enter(space, key, limit),
            Place::Shared => shared.enter(space, key, limit),
        }
    }
}

/// The parts that several steps need, locked in one order for everybody.
struct Locked<'a>(Vec<(usize, MutexGuard<'a, Shard>)>, usize);

impl<'a> Locked<'a> {
    fn of(shards: &'a Sharded<Shard>, steps: &[Step<'_>]) -> Result<Self, LimiterError> {
        let mut wanted: Vec<usize> = steps.iter().map(|step| shards.index(step.hash)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let locked = wanted.into_iter().map(|index| {
            let shard = shards.shards.get(index).ok_or(LimiterError::Unavailable)?;
            Ok((index, shard.lock().unwrap_or_else(PoisonError::into_inner)))
        });
        Ok(Locked(
            locked.collect::<Result<_, LimiterError>>()?,
            shards.shards.len(),
        ))
    }

    fn shard(&mut self, hash: u64) -> Result<&mut Shard, LimiterError> {
        let index = super::index(hash, self.1);
        self.0
            .iter_mut()
            .find(|(known, _)| *known == index)
            .map(|(_, shard)| &mut **shard)
            .ok_or(LimiterError::Unavailable)
    }
}

/// A bucket that is about to be used.
#[derive(Clone, Copy, Debug)]
struct Step<'a> {
    space: &'a str,
    key: &'a str,
    hash: u64,
    shape: Shape,
}

impl Shard {
    /// One step on a bucket. Gives what is said, and what was held before.
    fn act(
        &mut self,
        step: Step<'_>,
        now: Now,
        act: Act,
        bound: usize,
    ) -> Result<(Level, Held), LimiterError> {
        let Step {
            space, key, shape, ..
        } = step;
        if let Some(held) = self.spaces.get_mut(space).and_then(|it| it.get_mut(key)) {
            let before = *held;
            let (level, after) = shape.decide(now, before, act);
            *held = after;
            return Ok((level, before));
        }
        let shared = self.slot(step).copied().unwrap_or_default();
        let (level, after) = shape.decide(now, shared, act);
        let changes = after.full_at > now.steady || after.part > 0;
        if matches!(act, Act::Peek(_)) || !changes {
            return Ok((level, shared));
        }
        if self.buckets >= bound {
            self.make_room(now.steady);
        }
        if self.buckets < bound {
            self.insert(space, key, after);
        } else {
            *self.shared(step)? = after;
        }
        Ok((level, shared))
    }

    /// Makes a bucket what it was before a step.
    fn restore(&mut self, step: Step<'_>, before: Held) {
        let own = self
            .spaces
            .get_mut(step.space)
            .and_then(|it| it.get_mut(step.key));
        if let Some(held) = own {
            *held = before;
        } else if let Some(held) = self.slot(step) {
            *held = before;
        }
    }

    fn insert(&mut self, space: &str, key: &str, held: Held) {
        if !self.spaces.contains_key(space) {
            self.spaces.insert(Box::from(space), Space::new());
        }
        if let Some(buckets) = self.spaces.get_mut(space) {
            buckets.insert(Box::from(key), held);
            self.buckets += 1;
        }
    }

    /// Throws out what is full. Looking through all of them is seldom.
    fn make_room(&mut self, now: u64) {
        if now < self.look_at {
            return;
        }
        self.spaces.retain(|_, buckets| {
            buckets.retain(|_, held| held.full_at >= now);
            !buckets.is_empty()
        });
        self.overflow
            .retain(|_, slots| slots.iter().any(|held| held.full_at >= now));
        self.buckets = self.spaces.values().map(HashMap::len).sum();
        self.look_at = now.saturating_add(LOOK_AGAIN);
    }

    /// The bucket that a key shares with others of its hash, if there are such.
    fn slot(&mut self, step: Step<'_>) -> Option<&mut Held> {
        if self.overflow.is_empty() {
            return None;
        }
        let slots = self
            .overflow
            .get_mut(&(Box::from(step.space), step.shape.lasting()))?;
        let index = super::index(step.hash.rotate_left(32), slots.len());
        slots.get_mut(index)
    }

    /// The same, made if need be.
    fn shared(&mut self, step: Step<'_>) -> Result<&mut Held, LimiterError> {
        let shape = (Box::from(step.space), step.shape.lasting());
        if !self.overflow.contains_key(&shape) {
            if self.overflow.len() >= MAX_SHAPES {
                return Err(LimiterError::Unavailable);
            }
            let slots = vec![Held::default(); SHARED_BUCKETS];
            self.overflow.insert(shape, slots.into_boxed_slice());
        }
        self.slot(step).ok_or(LimiterError::Unavailable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tidegate_core::clock::ManualClock;

    fn buckets() -> (Arc<ManualClock>, TokenBuckets) {
        let clock = Arc::new(ManualClock::at(1_000_000_000));
        (Arc::clone(&clock), TokenBuckets::new(clock))
    }

    /// A sequence without an end that looks like chance.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
            self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound
        }
    }

    #[test]
    fn ten_a_second_with_a_burst_of_five() {
        let (clock, buckets) = buckets();
        let take = || buckets.take("f", "k", 1, 10.0, 5);
        for left in (0..5).rev() {
            let verdict = take();
            assert!(verdict.allowed);
            assert_eq!(verdict.remaining, left);
        }
        let refused = take();
        assert!(!refused.allowed);
        assert_eq!(refused.retry_after, 100_000_000);
        assert_eq!(refused.reset_after, 500_000_000);
        clock.advance(Duration::from_millis(100));
        assert!(take().allowed);
        assert!(!take().allowed);
        clock.advance(Duration::from_secs(1_000_000_000));
        for _ in 0..5 {
            assert!(take().allowed);
        }
        assert!(!take().allowed);
    }

    #[test]
    fn waiting_as_told_is_enough_for_any_rate_and_less_is_not() {
        for rate in [1.0 / 86_400.0, 0.3, 1.0, 3.0, 7.0, 333.3, 1e6] {
            let (clock, buckets) = buckets();
            while buckets.take("f", "k", 1, rate, 3).allowed {}
            let wait = buckets.take("f", "k", 1, rate, 3).retry_after;
            clock.advance(Duration::from_nanos(wait - 1));
            assert!(!buckets.take("f", "k", 1, rate, 3).allowed, "{rate}");
            clock.advance(Duration::from_nanos(1));
            assert!(buckets.take("f", "k", 1, rate, 3).allowed, "{rate}");
        }
    }

    #[test]
    fn what_can_never_be_allowed_is_refused_for_ever() {
        let (_, buckets) = buckets();
        for (tokens, rate, burst) in [
            (1, 0.0, 5),
            (1, -1.0, 5),
            (1, f64::NAN, 5),
            (1, f64::INFINITY, 5),
            (1, 1.0, 0),
            (6, 1.0, 5),
        ] {
            let verdict = buckets.take("f", "k", tokens, rate, burst);
            assert_eq!((verdict.allowed, verdict.retry_after), (false, u64::MAX));
        }
    }

    #[test]
    fn spaces_and_keys_are_apart() {
        let (_, buckets) = buckets();
        for (space, key) in [("f", "k"), ("g", "k"), ("f", "l"), ("fk", "")] {
            assert!(buckets.take(space, key, 1, 1.0, 1).allowed);
            assert!(!buckets.take(space, key, 1, 1.0, 1).allowed);
        }
    }

    #[test]
    fn any_run_agrees_with_a_simple_model() {
        // Steps that are whole eighths of a token keep the model exact.
        for seed in 0..20 {
            let mut chance = Chance(seed);
            let (clock, buckets) = buckets();
            let burst = 1 + u32::try_from(chance.below(6)).unwrap();
            let mut levels = [f64::from(burst); 3];
            for _ in 0..3000 {
                let steps = chance.below(20);
                clock.advance(Duration::from_nanos(steps * 15_625_000));
                for level in &mut levels {
                    *level = f64::min(f64::from(burst), *level + steps as f64 / 8.0);
                }
                let key = usize::try_from(chance.below(3)).unwrap();
                let tokens = u32::try_from(chance.below(4)).unwrap();
                let expected = levels[key] >= f64::from(tokens);
                let verdict = buckets.take("f", &key.to_string(), tokens, 8.0, burst);
                assert_eq!(verdict.allowed, expected, "seed {seed}");
                if expected {
                    levels[key] -= f64::from(tokens);
                }
                assert_eq!(verdict.remaining, levels[key] as u32, "seed {seed}");
            }
        }
    }

    #[test]
    fn buckets_are_bounded_and_making_others_fills_none() {
        let clock = Arc::new(ManualClock::at(1));
        let buckets = TokenBuckets::bounded(Arc::clone(&clock) as Arc<dyn Clock>, 64 * 20);
        // One day until it has a token again.
        while buckets.take("f", "victim", 1, 1.0 / 86_400.0, 5).allowed {}
        for number in 0..20_000 {
            buckets.take("f", &format!("k{number}"), 1, 1.0 / 86_400.0, 5);
        }
        let held: usize = (0..SHARDS)
            .map(|n| buckets.local.shards.shards[n].lock().unwrap().buckets)
            .sum();
        assert!(held <= 64 * 21, "{held}");
        assert!(!buckets.take("f", "victim", 1, 1.0 / 86_400.0, 5).allowed);
        // When all are full, all can go.
        clock.advance(Duration::from_secs(86_400 * 5));
        for number in 0..20_000 {
            buckets.take("f", &format!("l{number}"), 1, 1e6, 5);
        }
        assert!(buckets.take("f", "victim", 5, 1.0 / 86_400.0, 5).allowed);
    }

    #[test]
    fn workers_share_a_bucket_exactly() {
        let buckets = Arc::new(TokenBuckets::new(Arc::new(ManualClock::at(1))));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let buckets = Arc::clone(&buckets);
                std::thread::spawn(move || {
                    let takes = 0..1000;
                    takes
                        .filter(|_| buckets.take("f", "k", 1, 1.0, 1500).allowed)
                        .count()
                })
            })
            .collect();
        let allowed: usize = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum();
        assert_eq!(allowed, 1500);
    }

    fn refilling(capacity: u64, refill: u64, period_ms: u64) -> Bucket {
        Bucket {
            capacity,
            refill,
            period_ms,
            full_at_ms: 0,
        }
    }

    fn ask(key: &str, tokens: u64, bucket: Bucket) -> Demand<'_> {
        Demand {
            key,
            tokens,
            bucket,
        }
    }

    #[test]
    fn a_burst_is_as_many_as_it_says_at_any_rate() {
        for burst in 1..100_u32 {
            let (_, buckets) = buckets();
            let rate = f64::from(burst);
            let bucket = refilling(u64::from(burst), u64::from(burst), 1000);
            for left in (0..burst).rev() {
                assert_eq!(buckets.take("f", "k", 1, rate, burst).remaining, left);
                let level = buckets.try_take(Place::Shared, "f", &ask("k", 1, bucket));
                assert_eq!(level.unwrap().remaining, u64::from(left));
            }
            assert!(!buckets.take("f", "k", 1, rate, burst).allowed, "{burst}");
            let level = buckets.try_take(Place::Shared, "f", &ask("k", 1, bucket));
            assert!(!level.unwrap().allowed, "{burst}");
        }
    }

    #[test]
    fn any_run_agrees_with_exact_fractions() {
        // Levels in parts of a token: nanoseconds times refill, of which a token has `period`.
        let shapes = [(5, 7, 3), (1, 1, 86_400_000), (10, 3, 1000), (4, 1000, 1)];
        for (seed, (capacity, refill, period_ms)) in (0..40).zip(shapes.iter().cycle()) {
            let bucket = refilling(*capacity, *refill, *period_ms);
            let period = i128::from(*period_ms) * 1_000_000;
            let whole = i128::from(*capacity) * period;
            let mut chance = Chance(seed);
            let (clock, buckets) = buckets();
            let mut level = whole;
            for _ in 0..2000 {
                let passed = chance.below(1 + 2 * bucket.period_ms * 1_000_000 / bucket.refill);
                clock.advance(Duration::from_nanos(passed));
                level = whole.min(level + i128::from(passed) * i128::from(*refill));
                let tokens = chance.below(capacity + 2);
                let cost = i128::from(tokens) * period;
                let said = match chance.below(5) {
                    0 => {
                        level -= cost;
                        let tokens = i64::try_from(tokens).unwrap();
                        buckets.charge(Place::Local, "f", "k", tokens, &bucket)
                    }
                    1 => {
                        level = whole.min(level + cost);
                        let tokens = -i64::try_from(tokens).unwrap();
                        buckets.charge(Place::Local, "f", "k", tokens, &bucket)
                    }
                    2 => buckets.peek(Place::Local, "f", &ask("k", 0, bucket)),
                    _ => {
                        let allowed = level >= cost;
                        level -= if allowed { cost } else { 0 };
                        let said = buckets.try_take(Place::Local, "f", &ask("k", tokens, bucket));
                        assert_eq!(said.unwrap().allowed, allowed, "seed {seed}");
                        said
                    }
                };
                let said = said.unwrap();
                assert_eq!(
                    i128::from(said.remaining),
                    level.max(0) / period,
                    "seed {seed}"
                );
                let missing = u128::try_from(whole - level).unwrap();
                let reset = missing.div_ceil(u128::from(*refill));
                assert_eq!(u128::from(said.reset_after), reset, "seed {seed}");
            }
        }
    }

    #[test]
    fn waiting_as_told_is_enough_and_less_is_not() {
        for bucket in [
            refilling(3, 7, 1),
            refilling(1, 1, 86_400_000),
            refilling(1000, 1000, 2_678_400_000),
        ] {
            let (clock, buckets) = buckets();
            let demand = ask("k", 1, bucket);
            buckets
                .charge(Place::Local, "f", "k", 2000, &bucket)
                .unwrap();
            let wait = buckets.peek(Place::Local, "f", &demand).unwrap();
            assert!(!wait.allowed);
            clock.advance(Duration::from_nanos(wait.retry_after - 1));
            assert!(
                !buckets
                    .try_take(Place::Local, "f", &demand)
                    .unwrap()
                    .allowed
            );
            clock.advance(Duration::from_nanos(1));
            assert!(
                buckets
                    .try_take(Place::Local, "f", &demand)
                    .unwrap()
                    .allowed
            );
        }
    }

    #[test]
    fn a_quota_comes_back_as_a_whole_at_its_end() {
        let (clock, buckets) = buckets();
        let second = |end: u64| Bucket {
            full_at_ms: end * 1000,
            ..refilling(5, 0, 0)
        };
        let take = |tokens, end| {
            let demand = ask("k", tokens, second(end));
            buckets.try_take(Place::Shared, "f", &demand).unwrap()
        };
        // It is one second past 1970.
        assert_eq!(take(4, 10).remaining, 1);
        let refused = take(2, 10);
        assert_eq!(
            (refused.allowed, refused.retry_after),
            (false, 9_000_000_000)
        );
        assert_eq!(take(6, 10).retry_after, u64::MAX);
        clock.advance(Duration::from_nanos(8_999_999_999));
        assert!(!take(2, 10).allowed);
        clock.advance(Duration::from_nanos(1));
        assert_eq!(take(2, 20).remaining, 3);
        // Who is behind takes from the same.
        assert_eq!(take(2, 10).remaining, 1);
        assert!(!take(2, 20).allowed);
        let owed = buckets.charge(Place::Shared, "f", "k", 10, &second(20));
        assert!(!owed.unwrap().allowed);
        assert_eq!(take(1, 30).remaining, 4);
    }

    #[test]
    fn several_buckets_give_all_or_nothing() {
        let (_, buckets) = buckets();
        let day = 86_400_000;
        let demands = [
            ask("a", 1, refilling(10, 1, day)),
            ask("b", 2, refilling(3, 1, day)),
            ask("a", 4, refilling(10, 1, day)),
        ];
        let levels = buckets.take_all(Place::Local, "f", &demands).unwrap();
        let told: Vec<_> = levels.iter().map(|it| (it.allowed, it.remaining)).collect();
        assert_eq!(told, [(true, 9), (true, 1), (true, 5)]);
        let levels = buckets.take_all(Place::Local, "f", &demands).unwrap();
        let told: Vec<_> = levels.iter().map(|it| (it.allowed, it.remaining)).collect();
        assert_eq!(told, [(true, 5), (false, 1), (true, 5)]);
        let level = buckets.peek(Place::Local, "f", &demands[0]).unwrap();
        assert_eq!(level.remaining, 4);
        assert_eq!(buckets.take_all(Place::Local, "f", &[]), Ok(Vec::new()));
    }

    #[test]
    fn places_are_apart_and_one_limit_of_many_threads_is_exact() {
        let buckets = Arc::new(TokenBuckets::new(Arc::new(ManualClock::at(1))));
        let day = 86_400_000;
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let buckets = Arc::clone(&buckets);
                std::thread::spawn(move || {
                    let mut demands = [
                        ask("a", 1, refilling(1500, 1, day)),
                        ask("b", 1, refilling(1700, 1, day)),
                    ];
                    if thread % 2 == 0 {
                        demands.reverse();
                    }
                    let took = |_: &i32| {
                        let levels = buckets.take_all(Place::Local, "f", &demands).unwrap();
                        levels.iter().all(|level| level.allowed)
                    };
                    (0..1000).filter(took).count()
                })
            })
            .collect();
        let allowed: usize = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum();
        assert_eq!(allowed, 1500);
        let left = buckets.peek(Place::Local, "f", &ask("b", 0, refilling(1700, 1, day)));
        assert_eq!(left.unwrap().remaining, 200);
        let left = buckets.peek(Place::Shared, "f", &ask("b", 0, refilling(1700, 1, day)));
        assert_eq!(left.unwrap().remaining, 1700);
    }

    #[test]
    fn keys_without_room_share_buckets_and_nobody_gets_his_back() {
        let clock = Arc::new(ManualClock::at(1));
        let buckets = TokenBuckets::bounded(Arc::clone(&clock) as Arc<dyn Clock>, 64 * 10);
        let bucket = refilling(2, 2, 86_400_000);
        let take = |key: &str| {
            let demand = ask(key, 1, bucket);
            buckets.try_take(Place::Local, "f", &demand).unwrap()
        };
        let keys: Vec<String> = (0..60_000).map(|number| format!("k{number}")).collect();
        let mut allowed = 0;
        for key in &keys {
            allowed += u32::from(take(key).allowed);
        }
        // All have a bucket of their own or share one of 64 x 256.
        assert!(
            (64 * 256..=2 * 64 * 256 + 640).contains(&allowed),
            "{allowed}"
        );
        for key in &keys {
            take(key);
            take(key);
        }
        assert!(keys.iter().all(|key| !take(key).allowed));
        // What was shared goes on to be missing from a bucket of one's own.
        let (_, room) = buckets.local.shards.shards.split_at(0);
        room.iter().for_each(|shard| {
            let mut shard = shard.lock().unwrap();
            shard.spaces.clear();
            shard.buckets = 0;
        });
        let before = keys.iter().filter(|key| take(key).allowed).count();
        assert!(before <= 2 * 640, "{before}");
        clock.advance(Duration::from_secs(86_400));
        assert_eq!(take("k0").remaining, 1);
    }
}
