//! The shape every compiled mail has, and the macro that declares one.

use super::branding::Letterhead;
use super::field::Fields;
use super::{Definition, Rendered};

/// A mail with all its variables read.
pub(super) trait Mail: Sized {
    const DEFINITION: Definition;

    /// Reads every variable, also after one of them failed, so that all violations are reported.
    fn read(fields: &mut Fields<'_>) -> Option<Self>;

    fn render(&self, brand: &Letterhead) -> askama::Result<Rendered>;
}

/// Declares a mail once: its struct, its [`Definition`] and its three templates.
///
/// The comments become the descriptions that callers read. askama wants its paths as literals,
/// which is why the three are spelled out. Templates see `mail` and `brand`; the HTML one also
/// sees `subject`.
macro_rules! mail {
    (
        $(#[doc = $about:literal])+
        $model:ident = $name:literal, [$subject:literal, $html:literal, $text:literal] {
            $( $(#[doc = $hint:literal])+ $field:ident: $kind:ty = $sample:literal, )+
        }
    ) => {
        $(#[doc = $about])+
        pub(super) struct $model {
            $( $field: $kind, )+
        }

        impl super::mail::Mail for $model {
            const DEFINITION: super::Definition =
                super::Definition::of::<Self>(
                    $name,
                    concat!($($about),+),
                    &[$( super::Variable {
                        name: stringify!($field),
                        description: concat!($($hint),+).trim_ascii(),
                        required: <$kind as super::field::Kind>::REQUIRED,
                        sample: $sample,
                    } ),+],
                );

            fn read(fields: &mut super::field::Fields<'_>) -> Option<Self> {
                $( let $field = fields.take::<$kind>(stringify!($field)); )+
                Some(Self { $( $field: $field?, )+ })
            }

            fn render(
                &self,
                brand: &super::branding::Letterhead,
            ) -> askama::Result<super::Rendered> {
                use super::branding::Letterhead;
                use super::layout;
                use askama::Template;

                #[derive(Template)]
                #[template(path = $subject)]
                #[allow(dead_code, reason = "a subject need not name either")]
                struct Subject<'a> {
                    mail: &'a $model,
                    brand: &'a Letterhead,
                }

                #[derive(Template)]
                #[template(path = $html)]
                struct Html<'a> {
                    mail: &'a $model,
                    brand: &'a Letterhead,
                    subject: &'a str,
                }

                #[derive(Template)]
                #[template(path = $text)]
                struct Text<'a> {
                    mail: &'a $model,
                    brand: &'a Letterhead,
                }

                let mail = self;
                let subject = layout::subject(&Subject { mail, brand }.render()?);
                let html = Html { mail, brand, subject: &subject }.render()?;
                let text = layout::text(&Text { mail, brand }.render()?);
                Ok(super::Rendered { subject, html, text })
            }
        }
    };
}

pub(super) use mail;
