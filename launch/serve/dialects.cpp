// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/dialects.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <nlohmann/json.hpp>

#include "runtime/files/json_text.h"

namespace lockstep::serve {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using Kind = Field::Kind;

// What a text of /invocations says; "": it is not there.
std::string said(const json& body, const char* name) {
  const auto it = body.find(name);
  return it != body.end() && it->is_string() ? it->get<std::string>() : "";
}

// "512x512"; "auto": the model's.
void put_size(const Field& field, const json& value, json& body) {
  const std::string text = value.is_string() ? value.get<std::string>() : "";
  if (text == "auto") return;
  const char* end = text.data() + text.size();
  int64_t width = 0, height = 0;
  const auto [x, wrong] = std::from_chars(text.data(), end, width);
  if (wrong != std::errc() || x == end || *x != 'x')
    throw Refusal{400, "is WIDTHxHEIGHT or auto", field.name};
  const auto [rest, bad] = std::from_chars(x + 1, end, height);
  if (bad != std::errc() || rest != end) throw Refusal{400, "is WIDTHxHEIGHT or auto", field.name};
  body["width"] = width, body["height"] = height;
}

// Batches times what each holds.
void put_product(const Field& field, const json& value, json& body) {
  const int64_t n = value.is_number_integer() ? value.get<int64_t>() : 0;
  if (n < 1 || n > static_cast<int64_t>(field.most))
    throw Refusal{400, fmt::format("is a whole number from 1 to {}", field.most), field.name};
  const auto before = body.find(field.ours);
  body[field.ours] = before == body.end() ? n : before->get<int64_t>() * n;
}

// Of sampler_index and sampler_name the latter counts, as there; it comes behind the other in an object's order.
void put_sampler(const Field& field, const json& value, json& body) {
  const std::string name = value.is_string() ? value.get<std::string>() : "";
  const auto same = [&](const SamplerAlias& s) { return name == s.name || name == s.ours; };
  const auto all = sampler_aliases();
  const auto it = std::find_if(all.begin(), all.end(), same);
  if (it == all.end()) throw Refusal{400, "is none of /sdapi/v1/samplers", field.name};
  body[field.ours] = it->ours;
}

// {"sd_model_checkpoint": NAME} alone.
void put_settings(const Field& field, const json& value, json& body) {
  if (!value.is_object()) throw Refusal{400, "is an object", field.name};
  for (const auto& [name, setting] : value.items()) {
    if (name != "sd_model_checkpoint")
      throw Refusal{400, "is not supported", field.name + ("." + utf8_text(name))};
    body["model"] = setting;
  }
}

constexpr Field kOpenAiFields[] = {
    {"prompt", Kind::text, "what to draw; of a model that knows classes a class's name", 0, 0, "prompt"},
    {"model", Kind::text, "which of the models that are served", 0, 0, "model"},
    {"n", Kind::whole, "pictures", 1, 4096, "num_images_per_prompt"},
    {"size", Kind::text, "WIDTHxHEIGHT in pixels, or auto", 0, 0, "width", nullptr, put_size},
    {"output_format", Kind::text, "png or jpeg", 0, 0, "format"},
    {"response_format", Kind::text, "pictures come in the answer", 0, 0, nullptr, "\"b64_json\""},
    {"stream", Kind::flag, "the answer is a stream of events", 0, 0, "stream"},
    {"partial_images", Kind::whole, "pictures on their way, in such a stream", 0, 3, "partial_images"},
    {"quality", Kind::text, "the model has one", 0, 0, nullptr, "\"auto\" \"standard\""},
    {"background", Kind::text, "pictures have one", 0, 0, nullptr, "\"auto\" \"opaque\""},
    {"moderation", Kind::text, "there is none", 0, 0, nullptr, "\"auto\" \"low\""},
    {"user", Kind::any, "whom the client asks for; it is not kept"},
    // Beyond OpenAI's.
    {"negative_prompt", Kind::text, "what guidance leads away from", 0, 0, "negative_prompt"},
    {"num_inference_steps", Kind::whole, "steps from noise to picture", 1, 1000, "num_inference_steps"},
    {"guidance_scale", Kind::number, "how far the prompt leads", 0, 100, "guidance_scale"},
    {"sampler", Kind::text, "ddim, ddpm, pndm, dpm_solver, euler or euler_ancestral", 0, 0, "sampler"},
    {"seed", Kind::seed, "the same seed draws the same pictures; -1: a random one", 0, 0, "seed"},
};

// Clients send all of their fields, most of them with the values that ask for nothing.
constexpr Field kAutomatic1111Fields[] = {
    {"prompt", Kind::text, "what to draw; of a model that knows classes a class's name", 0, 0, "prompt"},
    {"negative_prompt", Kind::text, "what guidance leads away from", 0, 0, "negative_prompt"},
    {"seed", Kind::seed, "the same seed draws the same pictures; -1: a random one", 0, 0, "seed"},
    {"steps", Kind::whole, "steps from noise to picture", 1, 1000, "num_inference_steps"},
    {"cfg_scale", Kind::number, "how far the prompt leads", 0, 100, "guidance_scale"},
    {"eta", Kind::number, "DDIM's share of noise in each step", 0, 1, "eta"},
    {"width", Kind::whole, "pixels", 1, 65500, "width"},
    {"height", Kind::whole, "pixels", 1, 65500, "height"},
    {"batch_size", Kind::whole, "pictures of a batch", 1, 4096, "num_images_per_prompt", nullptr,
     put_product},
    {"n_iter", Kind::whole, "batches", 1, 4096, "num_images_per_prompt", nullptr, put_product},
    {"sampler_name", Kind::text, "one of /sdapi/v1/samplers", 0, 0, "sampler", nullptr, put_sampler},
    {"sampler_index", Kind::text, "the same by its old name; sampler_name counts", 0, 0, "sampler", nullptr,
     put_sampler},
    {"scheduler", Kind::text, "the sampler's own", 0, 0, nullptr, "\"automatic\" \"Automatic\""},
    {"s_churn", Kind::number, "", 0, 0, nullptr, "0"},
    {"s_tmin", Kind::number, "", 0, 0, nullptr, "0"},
    {"s_tmax", Kind::number, "", 0, 0, nullptr, "0"},
    {"s_noise", Kind::number, "", 0, 0, nullptr, "1"},
    {"s_min_uncond", Kind::number, "", 0, 0, nullptr, "0"},
    {"override_settings", Kind::object, "sd_model_checkpoint: which of the models that are served", 0, 0,
     "model", nullptr, put_settings},
    {"override_settings_restore_afterwards", Kind::flag, "they hold for the request alone", 0, 0, nullptr,
     "true"},
    {"send_images", Kind::flag, "pictures come in the answer", 0, 0, nullptr, "true"},
    {"save_images", Kind::flag, "and are not kept", 0, 0, nullptr, "false"},
    {"do_not_save_samples", Kind::flag, "", 0, 0, nullptr, "true false"},
    {"do_not_save_grid", Kind::flag, "", 0, 0, nullptr, "true false"},
    {"enable_hr", Kind::flag, "", 0, 0, nullptr, "false"},
    // How it would be done, which is not.
    {"denoising_strength", Kind::any, "of enable_hr"},
    {"firstphase_width", Kind::any, "of enable_hr"},
    {"firstphase_height", Kind::any, "of enable_hr"},
    {"hr_scale", Kind::any, "of enable_hr"},
    {"hr_upscaler", Kind::any, "of enable_hr"},
    {"hr_second_pass_steps", Kind::any, "of enable_hr"},
    {"hr_resize_x", Kind::any, "of enable_hr"},
    {"hr_resize_y", Kind::any, "of enable_hr"},
    {"hr_checkpoint_name", Kind::any, "of enable_hr"},
    {"hr_sampler_name", Kind::any, "of enable_hr"},
    {"hr_scheduler", Kind::any, "of enable_hr"},
    {"hr_prompt", Kind::any, "of enable_hr"},
    {"hr_negative_prompt", Kind::any, "of enable_hr"},
    {"restore_faces", Kind::flag, "", 0, 0, nullptr, "false"},
    {"tiling", Kind::flag, "", 0, 0, nullptr, "false"},
    {"styles", Kind::texts, "", 0, 0, nullptr, "[]"},
    {"subseed", Kind::whole, "", 0, 0, nullptr, "-1"},
    {"subseed_strength", Kind::number, "", 0, 0, nullptr, "0"},
    {"seed_resize_from_h", Kind::whole, "", 0, 0, nullptr, "-1 0"},
    {"seed_resize_from_w", Kind::whole, "", 0, 0, nullptr, "-1 0"},
    {"script_name", Kind::text, "", 0, 0, nullptr, "\"\""},
    {"script_args", Kind::texts, "", 0, 0, nullptr, "[]"},
    {"alwayson_scripts", Kind::object, "", 0, 0, nullptr, "{}"},
};

// There eta is DDIM's as it is here; of Euler a's noise it is the share, which here is 1; to the others it says nothing.
void fit_eta(const std::string& own_sampler, json& body) {
  const auto eta = body.find("eta");
  if (eta == body.end()) return;
  const std::string asked = said(body, "sampler"), &sampler = asked.empty() ? own_sampler : asked;
  if (sampler == "ddim") return;
  if (sampler == "euler_ancestral" && *eta != 1) throw Refusal{400, "is 1 for this sampler", "eta"};
  body.erase(eta);
}

int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}
const char* format_of(const Drawn& d) { return d.body.jpeg ? "jpeg" : "png"; }

ordered_json own_answer(const Drawn& d) {
  ordered_json answer = {{"generated_images", d.pictures},
                         {"format", format_of(d)},
                         {"seed", d.body.request.seed},
                         {"model", d.model}};
  if (std::ranges::any_of(d.body.left_out, [](const std::string& text) { return !text.empty(); }))
    answer["left_out"] = d.body.left_out;
  return answer;
}

Event own_progress(const Drawn& d) {
  ordered_json data = {{"step", d.evaluation}, {"steps", d.body.evaluations}, {"seed", d.body.request.seed}};
  if (!d.pictures.empty()) data["partial_images"] = d.pictures;
  return {"progress", json_text(data)};
}

Event own_completed(const Drawn& d) { return {"completed", json_text(own_answer(d))}; }

HttpResponse openai_refusal(const Refusal& r) {
  const char* type = r.status == 429   ? "rate_limit_error"
                     : r.status == 401 ? "authentication_error"
                     : r.status < 500  ? "invalid_request_error"
                                       : "server_error";
  HttpResponse answer = answer_of(r);
  ordered_json error = {{"message", (r.field.empty() ? "" : r.field + " ") + r.message}, {"type", type}};
  error["param"] = r.field.empty() ? ordered_json() : ordered_json(r.field);
  error["code"] = nullptr;
  answer.body = json_text(ordered_json{{"error", error}});
  return answer;
}

ordered_json openai_answer(const Drawn& d) {
  auto data = ordered_json::array();
  for (const std::string& picture : d.pictures) data.push_back({{"b64_json", picture}});
  return {{"created", unix_seconds()},
          {"data", data},
          {"output_format", format_of(d)},
          {"size", d.body.size.text()},
          {"seed", d.body.request.seed}};
}

ordered_json openai_event(const Drawn& d, const char* type) {
  return {{"type", type},
          {"b64_json", d.pictures.at(0)},
          {"created_at", unix_seconds()},
          {"size", d.body.size.text()},
          {"output_format", format_of(d)},
          {"background", "opaque"},
          {"quality", "auto"}};
}

Event openai_progress(const Drawn& d) {
  static constexpr const char* kType = "image_generation.partial_image";
  if (d.pictures.empty()) return {};
  ordered_json data = openai_event(d, kType);
  data["partial_image_index"] = d.partial;
  return {kType, json_text(data)};
}

Event openai_completed(const Drawn& d) {
  static constexpr const char* kType = "image_generation.completed";
  ordered_json data = openai_event(d, kType);
  data["seed"] = d.body.request.seed;
  return {kType, json_text(data)};
}

// Its errors of values are 422, as of all that are made with FastAPI.
HttpResponse automatic1111_refusal(const Refusal& r) {
  HttpResponse answer = answer_of(r);
  if (r.status == 400 && !r.field.empty()) answer.status = 422;
  const std::string text = (r.field.empty() ? "" : r.field + " ") + r.message;
  answer.body = json_text(ordered_json{
      {"error", r.status < 500 ? "Refused" : "Failed"}, {"detail", text}, {"body", ""}, {"errors", text}});
  return answer;
}

ordered_json automatic1111_answer(const Drawn& d) {
  const auto& r = d.body.request;
  const auto all = sampler_aliases();
  const auto sampler =
      std::find_if(all.begin(), all.end(), [&](const SamplerAlias& s) { return s.ours == r.sampler; });
  const char* asked = d.asked.contains("prompt") ? "prompt" : "class";
  ordered_json settings = {{"prompt", said(d.asked, asked)},
                           {"negative_prompt", said(d.asked, "negative_prompt")},
                           {"seed", r.seed},
                           {"steps", r.steps},
                           {"cfg_scale", r.guidance},
                           {"width", d.body.size.width},
                           {"height", d.body.size.height},
                           {"batch_size", r.count},
                           {"n_iter", 1},
                           {"sampler_name", sampler == all.end() ? r.sampler : sampler->name}};
  ordered_json info = settings;
  info["sd_model_name"] = d.model;
  return {{"images", d.pictures}, {"parameters", settings}, {"info", json_text(info)}};
}

}  // namespace

const Dialect kOwn = {"lockstep", own_fields(), answer_of, own_answer, own_progress, own_completed, false};
const Dialect kOpenAi = {"openai",         kOpenAiFields, openai_refusal, openai_answer, openai_progress,
                         openai_completed, true};
const Dialect kAutomatic1111 = {"automatic1111",
                                kAutomatic1111Fields,
                                automatic1111_refusal,
                                automatic1111_answer,
                                nullptr,
                                nullptr,
                                false};

json in_our_words(const Dialect& dialect, const json& body) {
  if (&dialect == &kOwn || body.is_null()) return body;
  json ours = json::object();
  for (const auto& entry : body.items()) {
    const std::string& name = entry.key();
    const json& value = entry.value();
    const auto it = std::ranges::find_if(dialect.fields, [&](const Field& f) { return name == f.name; });
    if (it == dialect.fields.end()) throw Refusal{400, "is no field that is known here", utf8_text(name)};
    if (value.is_null() || it->kind == Kind::any) continue;
    if (it->only) {
      const bool may = std::ranges::any_of(words_of(it->only), [&](const std::string& word) {
        return value == json::parse(word, nullptr, false);
      });
      if (!may) throw Refusal{400, fmt::format("is not supported but as {}", it->only), it->name};
    } else if (it->put) {
      it->put(*it, value, ours);
    } else if (it->kind == Kind::text && !value.is_string()) {
      throw Refusal{400, "is a string", it->name};  // where ours may be a list
    } else if (it->kind == Kind::whole &&
               (!value.is_number_integer() || value < it->least || value > it->most)) {
      throw Refusal{400, fmt::format("is a whole number from {} to {}", it->least, it->most), it->name};
    } else if (it->kind == Kind::number && !(value.is_number() && value >= it->least && value <= it->most)) {
      throw Refusal{400, fmt::format("is a number from {} to {}", it->least, it->most), it->name};
    } else {
      ours[it->ours] = value;
    }
  }
  return ours;
}

void fit_to_model(const Dialect& dialect, const Service& service, json& body) {
  if (&dialect == &kOwn || body.is_null()) return;
  if (&dialect == &kAutomatic1111) fit_eta(service.model().sampling.sampler, body);
  if (service.trained().tokenizer) return;
  for (const char* name : {"prompt", "negative_prompt"})
    if (said(body, name).empty()) body.erase(name);
  if (!service.model().conditional() || !body.contains("prompt")) return;
  body["class"] = body["prompt"];
  body.erase("prompt");
}

HttpResponse refusal_of(const Dialect& dialect, Refusal refusal) {
  // Where another API has one field for two of ours.
  if (&dialect != &kOwn) {
    if (refusal.field == "class") refusal.field = "prompt";
    if (refusal.field == "height" && &dialect == &kOpenAi) refusal.field = "width";
  }
  const auto it =
      std::ranges::find_if(dialect.fields, [&](const Field& f) { return f.ours && refusal.field == f.ours; });
  if (it != dialect.fields.end() &&
      std::ranges::none_of(dialect.fields, [&](const Field& f) { return refusal.field == f.name; }))
    refusal.field = it->name;
  return dialect.refusal(refusal);
}

std::span<const SamplerAlias> sampler_aliases() {
  static constexpr SamplerAlias kAliases[] = {{"Euler", "euler"}, {"Euler a", "euler_ancestral"},
                                              {"DDIM", "ddim"},   {"DDPM", "ddpm"},
                                              {"PLMS", "pndm"},   {"DPM++ 2M", "dpm_solver"}};
  return kAliases;
}

}  // namespace lockstep::serve
