//! The queries of routes.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{EmailTarget, Recipients, Route, Target};
use crate::clock::Timestamp;
use crate::db::schema::routes;
use crate::db::{Conn, on_duplicate};
use crate::error::{Error, Result};
use crate::on;

#[derive(Debug, Clone, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = routes)]
struct RouteRow {
    id: String,
    name: String,
    event_type: String,
    condition: String,
    active: bool,
    target: String,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<&Route> for RouteRow {
    fn from(route: &Route) -> Self {
        let target = serde_json::to_string(&route.target).expect("a target is plain text");
        let Route { id, name, event_type, condition, active, version, created_at, updated_at, .. } =
            route.clone();
        Self { id, name, event_type, condition, active, target, version, created_at, updated_at }
    }
}

impl TryFrom<RouteRow> for Route {
    type Error = Error;

    fn try_from(row: RouteRow) -> Result<Self> {
        let target = serde_json::from_str(&row.target).map_err(Error::internal)?;
        let RouteRow { id, name, event_type, condition, active, version, created_at, updated_at, .. } = row;
        Ok(Self { id, name, event_type, condition, active, target, version, created_at, updated_at })
    }
}

/// The active routes, by age.
pub async fn active(conn: &mut Conn) -> Result<Vec<Route>> {
    let rows: Vec<RouteRow> = on!(conn, |c| routes::table
        .filter(routes::active.eq(true))
        .order(routes::id)
        .select(RouteRow::as_select())
        .load(c)
        .await)?;
    rows.into_iter().map(Route::try_from).collect()
}

/// The name of a route that sends to this list, if there is one.
pub async fn uses_recipient_list(conn: &mut Conn, list: &str) -> Result<Option<String>> {
    uses(conn, |target| target.recipients == Recipients::List(list.to_owned())).await
}

/// The name of a route that sends this template, if there is one.
pub async fn uses_template(conn: &mut Conn, template: &str) -> Result<Option<String>> {
    uses(conn, |target| target.template == template).await
}

async fn uses(conn: &mut Conn, is_used: impl Fn(&EmailTarget) -> bool) -> Result<Option<String>> {
    let rows: Vec<RouteRow> =
        on!(conn, |c| routes::table.order(routes::id).select(RouteRow::as_select()).load(c).await)?;
    for row in rows {
        let route = Route::try_from(row)?;
        if let Target::Email(email) = &route.target
            && is_used(email)
        {
            return Ok(Some(route.name));
        }
    }
    Ok(None)
}

/// Routes after an id.
pub(super) async fn after(conn: &mut Conn, id: &str, limit: i64) -> Result<Vec<Route>> {
    let rows: Vec<RouteRow> = on!(conn, |c| routes::table
        .filter(routes::id.gt(id))
        .order(routes::id)
        .limit(limit)
        .select(RouteRow::as_select())
        .load(c)
        .await)?;
    rows.into_iter().map(Route::try_from).collect()
}

/// One route.
pub(super) async fn find(conn: &mut Conn, id: &str) -> Result<Route> {
    let row: Option<RouteRow> =
        on!(conn, |c| routes::table.find(id).select(RouteRow::as_select()).first(c).await.optional())?;
    row.ok_or_else(|| Error::not_found("route", id))?.try_into()
}

/// The route of this name.
pub(super) async fn find_by_name(conn: &mut Conn, name: &str) -> Result<Option<Route>> {
    let row: Option<RouteRow> = on!(conn, |c| routes::table
        .filter(routes::name.eq(name))
        .select(RouteRow::as_select())
        .first(c)
        .await
        .optional())?;
    row.map(Route::try_from).transpose()
}

/// Whether a route has this name.
pub(super) async fn has_name(conn: &mut Conn, name: &str) -> Result<bool> {
    let query = diesel::select(diesel::dsl::exists(routes::table.filter(routes::name.eq(name))));
    Ok(on!(conn, |c| query.get_result(c).await)?)
}

/// Adds a route.
pub(super) async fn insert(conn: &mut Conn, route: &Route) -> Result<()> {
    let insert = diesel::insert_into(routes::table).values(RouteRow::from(route));
    on!(conn, |c| insert.execute(c).await).map_err(|error| on_duplicate(error, "route", &route.name))?;
    Ok(())
}

/// Writes a changed route.
pub(super) async fn update(conn: &mut Conn, route: &Route) -> Result<()> {
    let update = diesel::update(routes::table.find(route.id.clone())).set(RouteRow::from(route));
    on!(conn, |c| update.execute(c).await).map_err(|error| on_duplicate(error, "route", &route.name))?;
    Ok(())
}

/// Removes a route.
pub(super) async fn delete(conn: &mut Conn, id: &str) -> Result<()> {
    let delete = diesel::delete(routes::table.find(id));
    match on!(conn, |c| delete.execute(c).await)? {
        0 => Err(Error::not_found("route", id)),
        _ => Ok(()),
    }
}
