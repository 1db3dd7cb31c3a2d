// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/openapi.h"

#include <nlohmann/json.hpp>

namespace lockstep::serve {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using Kind = Field::Kind;

ordered_json schema_of(const Field& f) {
  ordered_json s;
  switch (f.kind) {
    case Kind::text:
      s = {{"type", "string"}};
      break;
    case Kind::flag:
      s = {{"type", "boolean"}};
      break;
    case Kind::any:
      s = ordered_json::object();
      break;
    case Kind::object:
      s = {{"type", "object"}};
      break;
    case Kind::whole:
      s = {{"type", "integer"}, {"minimum", int64_t(f.least)}, {"maximum", int64_t(f.most)}};
      break;
    case Kind::number:
      s = {{"type", "number"}, {"minimum", f.least}, {"maximum", f.most}};
      break;
    case Kind::seed:
      s["oneOf"] = {{{"type", "integer"}, {"minimum", -1}}, {{"type", "string"}}};
      break;
    case Kind::texts:
      s["oneOf"] = {ordered_json{{"type", "string"}},
                    ordered_json{{"type", "array"}, {"items", ordered_json{{"type", "string"}}}}};
      break;
  }
  if (f.only) {
    // Its type is that of the values.
    s = ordered_json::object();
    for (const std::string& word : words_of(f.only))
      s["enum"].push_back(ordered_json::parse(word, nullptr, false));
  }
  if (*f.help) s["description"] = f.help;
  return s;
}

ordered_json body_of(const Dialect& d) {
  ordered_json properties = ordered_json::object();
  for (const Field& f : d.fields) properties[f.name] = schema_of(f);
  ordered_json content;
  content["application/json"]["schema"] = {
      {"type", "object"}, {"properties", properties}, {"additionalProperties", false}};
  if (&d == &kOwn)
    for (const char* type : {"image/png", "image/jpeg", "application/jsonlines"})
      content[type] = ordered_json::object();
  return {{"required", true}, {"content", content}};
}

}  // namespace

ordered_json openapi(std::span<const RouteFacts> routes, bool token) {
  ordered_json paths = ordered_json::object();
  for (const RouteFacts& r : routes) {
    std::string path = r.path, method = r.method;
    ordered_json what = {{"summary", r.summary}};
    if (const size_t at = path.find("NAME"); at != std::string::npos) {
      path.replace(at, 4, "{name}");
      what["parameters"] = ordered_json::array(
          {{{"name", "name"}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}}}}});
    }
    if (r.has_body) what["requestBody"] = body_of(*r.dialect);
    what["responses"]["200"] = {{"description", "the answer"}};
    what["responses"]["default"] = {{"description", "what is wrong"}};
    if (token && r.open) what["security"] = ordered_json::array();
    paths[path][method == "GET" ? "get" : "post"] = what;
  }
  ordered_json all = {
      {"openapi", "3.1.0"}, {"info", {{"title", "Lockstep"}, {"version", "1"}}}, {"paths", paths}};
  if (token) {
    all["components"]["securitySchemes"]["token"] = {{"type", "http"}, {"scheme", "bearer"}};
    all["security"] = ordered_json::array();
    all["security"].push_back({{"token", ordered_json::array()}});
  }
  return all;
}

}  // namespace lockstep::serve
