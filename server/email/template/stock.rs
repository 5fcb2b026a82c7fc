//! Mails about the inventory.

use super::mail::mail;
use super::value::Line;

mail! {
    /// Warns that an item has to be ordered again.
    LowStockAlert = "low_stock_alert", [
        "low_stock_alert/subject.txt", "low_stock_alert/body.html", "low_stock_alert/body.txt"
    ] {
        /// Name of the item.
        item_name: Line = r#""Layer feed, 25 kg bags""#,
        /// How much is left.
        current_stock: Line = "3.5",
        /// The level at which to order again.
        reorder_level: Option<Line> = "10",
        /// Category of the item.
        category: Option<Line> = r#""Feed""#,
        /// Unit that stock is counted in.
        unit: Option<Line> = r#""pallets""#,
    }
}

impl LowStockAlert {
    /// A level with its unit, if it has one.
    pub(super) fn measured(&self, level: &Line) -> String {
        self.unit.as_ref().map_or_else(|| level.to_string(), |unit| format!("{level} {unit}"))
    }

    pub(super) fn is_out_of_stock(&self) -> bool {
        self.current_stock.number().is_some_and(|left| left <= 0.0)
    }
}
