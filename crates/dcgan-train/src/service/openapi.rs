//! `/openapi.json`, derived from the table of routes and the table of options.

use super::record::JobState;
use super::{draw, options, resume, router};
use serde_json::{Map, Value, json};

/// The response of a route on success.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// JSON of a schema; an empty name is any object.
    Json(u16, &'static str),
    /// Bytes of one of these content types.
    Binary(&'static [&'static str]),
    /// Text of a content type.
    Text(&'static str),
    /// Server-sent events.
    Events,
    /// A status alone.
    Nothing(u16),
}

/// One method of one path.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    summary: &'static str,
    answer: Answer,
    query: &'static [(&'static str, &'static str, &'static str)],
    body: Option<&'static str>,
    others: &'static [u16],
}

impl Operation {
    pub(crate) fn new(
        method: &'static str,
        path: &'static str,
        summary: &'static str,
        answer: Answer,
    ) -> Self {
        Self { method, path, summary, answer, query: &[], body: None, others: &[] }
    }

    /// With parameters of the query: name, type, description.
    pub(crate) fn query(self, query: &'static [(&'static str, &'static str, &'static str)]) -> Self {
        Self { query, ..self }
    }

    /// With a JSON body of this schema.
    pub(crate) fn body(self, schema: &'static str) -> Self {
        Self { body: Some(schema), ..self }
    }

    /// With other statuses of the response, in addition to 401 and 403, which every route may return.
    pub(crate) fn or(self, others: &'static [u16]) -> Self {
        Self { others, ..self }
    }

    fn describe(&self) -> Value {
        let (status, content) = match self.answer {
            Answer::Json(status, "") => {
                (status, json!({ "application/json": { "schema": { "type": "object" } } }))
            }
            Answer::Json(status, name) => {
                (status, json!({ "application/json": { "schema": schema_of(name) } }))
            }
            Answer::Binary(kinds) => {
                let schema = json!({ "schema": { "type": "string", "format": "binary" } });
                let kinds = kinds.iter().map(|kind| ((*kind).to_owned(), schema.clone()));
                (200, Value::Object(kinds.collect()))
            }
            Answer::Text(kind) => (200, json!({ kind: { "schema": { "type": "string" } } })),
            Answer::Events => (200, json!({ "text/event-stream": { "schema": { "type": "string" } } })),
            Answer::Nothing(status) => (status, json!({})),
        };
        let mut responses = Map::new();
        responses.insert(status.to_string(), json!({ "description": self.summary, "content": content }));
        for other in self.others.iter().chain(&[401, 403]) {
            let content = json!({ "application/json": { "schema": schema_of("Error") } });
            let response = match other {
                204 => json!({ "description": "No more events" }),
                304 => json!({ "description": "Not modified" }),
                _ => json!({ "description": "The error", "content": content }),
            };
            responses.insert(other.to_string(), response);
        }
        let in_path = self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let mut parameters: Vec<Value> = in_path
            .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
            .collect();
        parameters.extend(self.query.iter().map(|(name, kind, description)| {
            json!({ "name": name, "in": "query", "description": description, "schema": { "type": kind } })
        }));
        if matches!(self.answer, Answer::Events) {
            let description = "Id of the last event received, STEP-K";
            parameters.push(json!({
                "name": "Last-Event-ID", "in": "header", "description": description, "schema": { "type": "string" }
            }));
        }
        let mut operation =
            json!({ "summary": self.summary, "parameters": parameters, "responses": responses });
        if let Some(body) = self.body {
            operation["requestBody"] =
                json!({ "content": { "application/json": { "schema": schema_of(body) } } });
        }
        operation
    }
}

fn schema_of(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// The document.
pub(crate) fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for (operation, _) in router::routes() {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.to_lowercase()] = operation.describe();
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "dcgan-train serve",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Training of DCGANs: submit, watch, stop and resume jobs, download models, draw samples.",
        },
        // Relative to the URL of this document: a proxy may serve the API below a sub-path.
        "servers": [{ "url": "." }],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
        "security": [{}, { "token": [] }],
    })
}

fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let whole = json!({ "type": "integer" });
    let maybe = |kind: &str| json!({ "type": [kind, "null"] });
    let list = |name: &str, of: Value| json!({ "type": "object", "properties": { name: { "type": "array", "items": of } } });
    let states: Vec<&str> = JobState::ALL.into_iter().map(JobState::name).collect();
    let mut jobs = list("jobs", schema_of("Job"));
    jobs["properties"]["next"] =
        json!({ "type": ["string", "null"], "description": "`before` of the next page" });
    json!({
        "Error": { "type": "object", "properties": { "error": { "type": "object", "properties": {
            "message": text,
            "faults": { "type": "array", "items": {
                "type": "object", "properties": { "field": text, "message": text },
            } },
        } } } },
        "JobOptions": options::schema(),
        "ResumeOptions": resume::resume_schema(),
        "DeleteRequest": { "type": "object", "additionalProperties": false, "properties": {
            "ids": { "type": "array", "items": text },
            "states": { "type": "array", "items": { "type": "string", "enum": ["cancelled", "failed", "done"] } },
            "confirm": { "type": "boolean", "description": "Delete them [default: false]" },
        } },
        "Deleted": { "type": "object", "properties": {
            "deleted": { "type": "array", "items": text }, "would_delete": { "type": "array", "items": text },
            "disk_bytes": whole,
            "failed": list("failed", json!({ "type": "object", "properties": { "id": text, "message": text } }))
                ["properties"]["failed"],
        } },
        "Store": { "type": "object", "properties": {
            "disk_bytes": whole, "database_bytes": whole, "free_bytes": maybe("integer"),
            "states": { "type": "object" },
            "keep_done": { "type": ["string", "null"], "description": "--keep-done of the service" },
        } },
        "Job": { "type": "object", "properties": {
            "id": text,
            "name": text,
            "created": { "type": "string", "format": "date-time" },
            "state": { "type": "string", "enum": states },
            "wanted": { "type": ["string", "null"], "description": "State of a running job after it has stopped" },
            "step": whole, "total_steps": maybe("integer"), "images": whole,
            "images_per_s": maybe("number"), "loss_d": maybe("number"), "loss_g": maybe("number"),
            "seconds_left": maybe("number"),
            "error": maybe("string"),
            "remedy": { "type": ["object", "null"], "properties": { "option": text, "effect": text },
                "description": "An option of a resume, to be set to true, that gets a failed job past its error, and \
                    what it changes" },
            "device": { "type": ["string", "null"], "description": "The device that the job runs or ran on" },
            "disk_bytes": maybe("integer"),
            "optimizer_state": { "type": "string", "enum": ["kept", "dropped"],
                "description": "dropped: the job cannot be resumed exactly" },
            "options": schema_of("JobOptions"),
            "created_unix_ms": whole, "started_unix_ms": maybe("integer"), "ended_unix_ms": maybe("integer"),
        } },
        "Jobs": jobs,
        "Preview": { "type": "object", "properties": {
            "networks": { "type": "string", "description": "Name of the networks: that of their preset" },
            "chosen_by_images": { "type": "boolean" },
            "images": { "type": ["string", "null"], "description": "Size and color of the images, if they chose" },
            "height": whole, "width": whole, "channels": whole,
            "color": { "type": "string", "enum": ["grey", "color", "color with alpha"] },
            "latent": { "type": "object" }, "training": { "type": "object" },
            "warnings": { "type": "array", "items": text },
        } },
        "Summary": { "type": "object", "properties": {
            "images": { "type": ["integer", "null"], "description": "Images of an epoch" },
            "skipped": { "type": "integer", "description": "Unreadable images that are left out" },
            "changes": { "type": "array", "items": {
                "type": "object", "properties": { "step": whole, "description": text },
            }, "description": "Accepted changes of the images" },
            "result": { "type": ["object", "null"], "description": "result.json of a done job" },
            "advice": { "type": ["string", "null"],
                "description": "What the random-feature Fréchet distances of a done job mean, and what to do" },
        } },
        "Samples": list("samples", json!({ "type": "object", "properties": {
            "n": whole, "url": { "type": "string", "description": "Relative to the URL of this list" },
        } })),
        "Models": list("models", json!({ "type": "object", "properties": {
            "id": text, "source": { "type": "string", "enum": ["job", "folder"] },
            "name": text, "height": whole, "width": whole, "channels": whole, "latent": { "type": "object" },
            "classes": { "type": "integer", "description": "0 for a model that is not conditional" },
            "class_names": { "type": "array", "items": text },
            "job_name": maybe("string"), "created": maybe("string"),
        } })),
        "DrawRequest": { "type": "object", "additionalProperties": false, "properties": {
            "seed": whole,
            "count": { "type": "integer", "minimum": 1, "maximum": draw::MAX_COUNT },
            "z": { "type": "array", "items": { "type": "array", "items": { "type": "number" } } },
            "labels": {
                "type": "array",
                "items": { "anyOf": [whole, text, { "type": "array", "items": { "type": "number" } }] },
                "description": "Classes of a conditional model, one for each image or one for all: by number, by name, \
                    or as a label vector, one-hot or soft labels; in turn by default",
            },
            "format": { "type": "string", "enum": ["png", "safetensors", "latents"],
                "description": "png: one grid, as many columns as rows or one more, two pixels between images and \
                    around them; one image alone has no frame; safetensors: z (n, z), images (n, c, h, w) in [-1, 1] \
                    (tanh) or [0, 1] (sigmoid), and labels (n, classes) of a conditional model; latents: the same \
                    without images" },
        } },
        "Presets": list("presets", json!({ "type": "object", "properties": {
            "name": text, "height": whole, "width": whole, "channels": whole, "latent": { "type": "object" },
            "training": { "type": "object" }, "text": { "type": "string", "description": "TOML, for `config`" },
        } })),
        "Data": list("data", json!({ "type": "object", "properties": {
            "name": text, "kind": { "type": "string", "enum": ["folder", "file"] }, "bytes": maybe("integer"),
        } })),
    })
}
