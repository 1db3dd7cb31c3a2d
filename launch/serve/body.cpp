// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/body.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "launch/serve/fields.h"

namespace lockstep::serve {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr int kDepth = 32;  // of nested arrays and objects

json parse_body(const std::string& text) {
  bool deep = false;
  const auto shallow = [&](int depth, json::parse_event_t, json&) {
    deep |= depth > kDepth;
    return !deep;
  };
  json j = json::parse(text, shallow, false);
  if (deep) throw Refusal{400, fmt::format("JSON is nested more than {} deep", kDepth)};
  if (j.is_discarded()) throw Refusal{400, "the body is no JSON"};
  if (!j.is_object()) throw Refusal{400, "the body is no JSON object"};
  return j;
}

int32_t class_of(const ModelDescription& m, const std::string& word) {
  for (size_t i = 0; i < m.class_names.size(); ++i)
    if (m.class_names[i] == word) return static_cast<int32_t>(i);
  int64_t number = -1;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  if (error != std::errc() || end != word.data() + word.size() || number < 0 || number >= m.input.classes)
    throw Refusal{400, "is no class of this model", "class"};
  return static_cast<int32_t>(number);
}

// What Accept asks for.
struct Wanted {
  bool raw = false;         // a picture, not JSON
  std::string format = {};  // "png" or "jpeg"; "": either
};
Wanted wanted_of(const std::string& accept) {
  const auto at = [&](const char* type) { return accept.find(type); };
  if (at("application/json") != std::string::npos) return {};
  const size_t png = at("image/png"), jpeg = at("image/jpeg");
  if (png != std::string::npos || jpeg != std::string::npos) return {true, png < jpeg ? "png" : "jpeg"};
  if (at("image/*") != std::string::npos) return {true};
  if (accept.empty() || at("*/*") != std::string::npos) return {};
  throw Refusal{406, "answers are application/json, image/png or image/jpeg"};
}

}  // namespace

std::string content_type(const HttpRequest& r) {
  std::string type = r.header("content-type").substr(0, r.header("content-type").find(';'));
  std::erase_if(type, [](unsigned char c) { return std::isspace(c) != 0; });
  std::transform(type.begin(), type.end(), type.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return type;
}

std::string base64(const std::string& bytes) {
  std::string text(4 * ((bytes.size() + 2) / 3) + 1, '\0');
  const int n =
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                      reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
  text.resize(static_cast<size_t>(n));
  return text;
}

std::string from_base64(const std::string& text, const std::string& field) {
  std::string coded =
      text.substr(text.starts_with("data:") ? std::min(text.find(','), text.size() - 1) + 1 : 0);
  std::erase_if(coded, [](unsigned char c) { return std::isspace(c) != 0; });
  std::string bytes(coded.size() / 4 * 3 + 1, '\0');
  const int n = coded.empty() || coded.size() % 4 != 0
                    ? -1
                    : EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                                      reinterpret_cast<const unsigned char*>(coded.data()),
                                      static_cast<int>(coded.size()));
  if (n < 0) throw Refusal{400, "is no base64", field};
  const auto padding = static_cast<int>(coded.ends_with("==") ? 2 : coded.ends_with('=') ? 1 : 0);
  bytes.resize(static_cast<size_t>(n - padding));
  return bytes;
}

json read_json(const HttpRequest& request) {
  return content_type(request) == "application/json" ? parse_body(request.body) : json();
}

std::string named_model(const json& body) { return body.is_null() ? "" : Fields(body).text("model", ""); }

bool read_pictures(const HttpRequest& request, const json& body, const ServiceLimits& limits,
                   std::vector<std::string>& pictures) {
  const std::string& accept = request.header("accept");
  if (std::ranges::none_of(std::array{"application/json", "application/*", "*/*"},
                           [&](const char* type) { return accept.find(type) != std::string::npos; }))
    throw Refusal{406, "answers are application/json"};
  const std::string type = content_type(request);
  if (type == "image/png" || type == "image/jpeg" || type == "application/x-image" ||
      type == "image/x-image") {
    pictures.push_back(request.body);
    return false;
  }
  if (body.is_null())
    throw Refusal{415, "a picture (image/png, image/jpeg) or application/json is read here"};
  Fields fields(body);
  const json* inputs = fields.find("inputs");
  if (!inputs) {
    fields.expect_no_others();
    throw Refusal{400, "is missing: pictures in base64", "inputs"};
  }
  const auto given = fields.texts("inputs", limits.pictures);
  fields.expect_no_others();
  for (const std::string& text : given) pictures.push_back(from_base64(text, "inputs"));
  return inputs->is_array();
}

// "prompt": text or a list of them, and "negative_prompt". Returns the prompts' numbers. Hugging Face's clients say "inputs".
static std::vector<int32_t> read_prompts(Fields& fields, const ClipTokenizer& tokenizer,
                                         const ServiceLimits& limits, DrawBody& body) {
  const bool by_inputs = fields.find("inputs") != nullptr;
  if (by_inputs && fields.find("prompt")) throw Refusal{400, "is given as inputs too", "prompt"};
  const char* const name = by_inputs ? "inputs" : "prompt";
  const std::vector<std::string> prompts = fields.texts(name, limits.pictures);
  if (prompts.empty()) throw Refusal{400, "is missing: what to draw", "prompt"};
  const std::string negative = fields.text("negative_prompt", "");
  const auto bound = [&](const std::string& text, const char* field) {
    if (static_cast<int64_t>(text.size()) > limits.prompt_bytes)
      throw Refusal{400, fmt::format("has more than {} bytes", limits.prompt_bytes), field};
  };
  for (const std::string& prompt : prompts) bound(prompt, name);
  bound(negative, "negative_prompt");
  try {
    body.left_out = diffusion::set_prompts(body.request, tokenizer, prompts, negative);
  } catch (const Error& e) {
    throw Refusal{400, e.message(), name};
  }
  std::vector<int32_t> numbers(prompts.size());
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

// One of those that are served; what is not said is the first one's.
static PictureSize read_size(Fields& fields, const std::vector<PictureSize>& sizes) {
  const PictureSize size{fields.whole("height", sizes[0].height, INT64_MAX),
                         fields.whole("width", sizes[0].width, INT64_MAX)};
  if (std::ranges::find(sizes, size) != sizes.end()) return size;
  std::vector<std::string> all;
  for (const PictureSize& s : sizes) all.push_back(s.text());
  const bool height = std::ranges::find(sizes, size.height, &PictureSize::height) == sizes.end();
  throw Refusal{400, fmt::format("pictures here are {} (width x height)", fmt::join(all, ", ")),
                height ? "height" : "width"};
}

DrawBody read_draw_request(const HttpRequest& request, const json& body, const Service& service) {
  if (body.is_null()) throw Refusal{415, "application/json is read here"};
  const ModelDescription& m = service.model();
  const ServiceLimits& limits = service.limits();
  Fields fields(body);
  DrawBody d;
  const Wanted wanted = wanted_of(request.header("accept"));
  d.raw = wanted.raw;
  const ClipTokenizer* tokenizer = service.trained().tokenizer.get();
  diffusion::GenerateRequest& r = d.request = diffusion::default_request(m, tokenizer);
  const int64_t each = fields.whole("num_images_per_prompt", 1, limits.pictures);
  std::vector<int32_t> asked;
  if (m.conditional()) {
    for (const std::string& word : fields.texts("class", limits.pictures)) asked.push_back(class_of(m, word));
    if (asked.empty()) asked.push_back(0);
  }
  if (tokenizer) asked = read_prompts(fields, *tokenizer, limits, d);
  r.count = each * std::max<int64_t>(1, static_cast<int64_t>(asked.size()));
  if (r.count > limits.pictures)
    throw Refusal{400, fmt::format("there are {} pictures in an answer at most", limits.pictures),
                  "num_images_per_prompt"};
  if (d.raw && r.count != 1)
    throw Refusal{400, "an answer that is a picture holds one", "num_images_per_prompt"};
  r.labels.clear();
  for (int32_t label : asked) r.labels.insert(r.labels.end(), static_cast<size_t>(each), label);
  for (int64_t i = 0; i < r.count; ++i) r.numbers.push_back(i % each);
  d.size = read_size(fields, service.sizes());
  const auto most = std::min<int64_t>(limits.steps, m.scheduler.schedule.num_train_timesteps);
  r.steps = fields.whole("num_inference_steps", r.steps, most);
  r.guidance = fields.number("guidance_scale", r.guidance);
  if (r.guidance != 1 && !tokenizer && !m.no_class_row())
    throw Refusal{400, "is 1 for a model that was trained without hiding classes", "guidance_scale"};
  r.seed = fields.seed();
  const std::string own_sampler = r.sampler;
  r.sampler = fields.text("sampler", own_sampler);
  r.eta = fields.number("eta", r.sampler == own_sampler ? r.eta : 0);
  const std::string format = fields.text("format", wanted.format.empty() ? "png" : wanted.format);
  if (format != "png" && format != "jpeg") throw Refusal{400, "is png or jpeg", "format"};
  if (!wanted.format.empty() && format != wanted.format)
    throw Refusal{400, "is not what Accept asks for", "format"};
  d.jpeg = format == "jpeg";
  d.stream = fields.flag("stream");
  d.partial_images = fields.whole("partial_images", 0, INT64_MAX);
  if (d.partial_images > 0 && !d.stream)
    throw Refusal{400, "is of an answer that is a stream", "partial_images"};
  if (d.stream && d.raw) throw Refusal{406, "a stream holds JSON"};
  fields.expect_no_others();
  try {
    d.evaluations = diffusion::make_sampler(r.sampler, m.scheduler, r.steps, r.eta)->steps();
  } catch (const Error& e) {
    throw Refusal{400, e.message(), "sampler"};
  }
  return d;
}

ordered_json describe_for_clients(const Served& served) {
  const Service& service = *served.service;
  const ModelDescription& m = service.model();
  ordered_json j = {{"model", served.version()},
                    {"task", m.diffusion() ? "draw" : "classify"},
                    {"channels", m.input.channels},
                    {"height", m.input.height},
                    {"width", m.input.width}};
  auto classes = ordered_json::array();
  if (m.conditional())
    for (int64_t c = 0; c < m.input.classes; ++c) classes.push_back(m.class_text(c));
  j["classes"] = classes;
  if (m.diffusion()) {
    auto sizes = ordered_json::array();
    for (const PictureSize& s : service.sizes()) sizes.push_back(s.text());
    j["sizes"] = sizes;
  }
  j["prompts"] = service.trained().tokenizer != nullptr;
  if (m.diffusion())
    j["defaults"] = {{"num_inference_steps", m.sampling.steps},
                     {"guidance_scale", m.sampling.guidance},
                     {"sampler", m.sampling.sampler}};
  const ServiceLimits& l = service.limits();
  j["limits"] = {{"pictures", l.pictures},
                 {"steps", std::min<int64_t>(l.steps, m.scheduler.schedule.num_train_timesteps)},
                 {"seconds", l.seconds}};
  return j;
}

}  // namespace lockstep::serve
