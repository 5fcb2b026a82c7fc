//! Which events somebody got, in two numbers.

/// How many, and a sum over their numbers that tells, as good as certainly, one set of events from any other.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    sum: u64,
}

impl Tally {
    /// Adds the event with this number.
    pub fn add(&mut self, number: u64) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(mixed(number));
    }

    /// How many of those that `all` has are missing here, and how many are here that are not there or came twice. At least so
    /// many: one that is missing hides one too many.
    pub fn faults(self, all: Self) -> (u64, u64) {
        let (missing, extra) = (all.count.saturating_sub(self.count), self.count.saturating_sub(all.count));
        let hidden = u64::from(self.count == all.count && self.sum != all.sum);
        (missing + hidden, extra + hidden)
    }
}

/// A permutation of all numbers that leaves no likeness between neighbours (the finalizer of MurmurHash3).
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let number = (number ^ (number >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    number ^ (number >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_missing_or_one_too_many_is_seen() {
        let of = |numbers: &[u64]| {
            let mut tally = Tally::default();
            numbers.iter().for_each(|&number| tally.add(number));
            tally
        };
        let all = of(&[0, 1, 2, 3]);
        assert_eq!(of(&[3, 1, 0, 2]).faults(all), (0, 0));
        assert_eq!(of(&[0, 1, 3]).faults(all), (1, 0));
        assert_eq!(of(&[0, 1, 2, 3, 3]).faults(all), (0, 1));
        assert_eq!(of(&[0, 1, 3, 3]).faults(all), (1, 1));
    }
}
