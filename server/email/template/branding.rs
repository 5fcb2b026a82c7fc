//! Who a mail comes from, and how that looks on paper.

use super::value::{Link, clean};

/// What every template knows about the sender's organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branding {
    /// The organisation's name, shown in the header and the footer.
    pub company_name: String,
    /// Where its website is; `http` or `https`.
    pub site_url: String,
    /// The address that answers questions.
    pub support_email: String,
    /// A picture to show in place of the name; `http` or `https`.
    pub logo_url: Option<String>,
    /// The colour of the header and of buttons, such as `#4CAF50`.
    pub colour: String,
}

impl Branding {
    /// What of it can be printed: an unusable link or address is empty, and a colour that is none is the default one.
    pub(in crate::email) fn printable(&self) -> Self {
        let Letterhead { name, site, support_email, logo, accent, .. } = Letterhead::new(self);
        Self {
            company_name: name,
            site_url: site.map(|site| site.to_string()).unwrap_or_default(),
            support_email: support_email.unwrap_or_default(),
            logo_url: logo.map(|logo| logo.to_string()),
            colour: accent,
        }
    }
}

/// Used when the configured colour is not one, so that no setting can reach into the styles.
const DEFAULT_ACCENT: [u8; 3] = [0x4c, 0xaf, 0x50];

/// The two colours text can have on the accent; the one that reads better is taken.
const PAPER: [u8; 3] = [0xff, 0xff, 0xff];
const INK: [u8; 3] = [0x1f, 0x29, 0x33];

/// Branding made safe to print: an unusable link, address or colour is left out, never printed.
pub(super) struct Letterhead {
    pub(super) name: String,
    pub(super) site: Option<Link>,
    pub(super) support_email: Option<String>,
    pub(super) logo: Option<Link>,
    pub(super) accent: String,
    /// The colour of text that stands on the accent.
    pub(super) on_accent: String,
    /// Shown by mail programs after the subject, in place of the template's own line.
    pub(super) preheader: Option<String>,
}

impl Letterhead {
    pub(super) fn new(branding: &Branding) -> Self {
        let accent = colour(&branding.colour).unwrap_or(DEFAULT_ACCENT);
        let dark_reads_better = contrast(INK, accent) > contrast(PAPER, accent);
        let support_email = clean(&branding.support_email);
        Self {
            name: clean(&branding.company_name),
            site: Link::parse(&branding.site_url),
            support_email: Some(support_email).filter(|address| is_address(address)),
            logo: branding.logo_url.as_deref().and_then(Link::parse),
            accent: hexadecimal(accent),
            on_accent: hexadecimal(if dark_reads_better { INK } else { PAPER }),
            preheader: None,
        }
    }

    /// With this preheader, unless it is empty.
    pub(super) fn with_preheader(self, preheader: &str) -> Self {
        Self { preheader: Some(clean(preheader)).filter(|line| !line.is_empty()), ..self }
    }
}

/// Just enough to be the target of a `mailto:` link; the settings check the rest.
fn is_address(address: &str) -> bool {
    address.contains('@') && !address.contains([' ', '?', '&', '<', '>', '"'])
}

/// Reads a colour written `#rgb` or `#rrggbb`.
fn colour(written: &str) -> Option<[u8; 3]> {
    let digits: Vec<u8> = written
        .trim()
        .strip_prefix('#')?
        .chars()
        .map(|digit| u8::try_from(digit.to_digit(16)?).ok())
        .collect::<Option<_>>()?;
    match digits[..] {
        [red, green, blue] => Some([red * 17, green * 17, blue * 17]),
        [_, _, _, _, _, _] => Some([0, 2, 4].map(|at| digits[at] * 16 + digits[at + 1])),
        _ => None,
    }
}

fn hexadecimal([red, green, blue]: [u8; 3]) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// The contrast ratio of two colours, as WCAG 2 defines it.
fn contrast(one: [u8; 3], other: [u8; 3]) -> f32 {
    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

fn luminance(colour: [u8; 3]) -> f32 {
    let [red, green, blue] = colour.map(|channel| {
        let share = f32::from(channel) / 255.0;
        if share <= 0.040_45 { share / 12.92 } else { ((share + 0.055) / 1.055).powf(2.4) }
    });
    0.2126 * red + 0.7152 * green + 0.0722 * blue
}
