// SPDX-License-Identifier: Apache-2.0
// What clients of AUTOMATIC1111 ask beside txt2img. "The caller's" are the drawings that its address asked for there.
#include "launch/serve/call.h"

namespace lockstep::serve {

using nlohmann::ordered_json;

// The oldest of the caller's. Its picture is made after the next step, for whoever asks again.
HttpResponse Api::sdapi_progress(const CallPtr& call) {
  const auto own = drawings_.of(call->request.peer);
  const std::string& query = call->request.query;
  const bool skips = query.find("skip_current_image=true") != std::string::npos;
  ordered_json state = {{"skipped", false},        {"interrupted", false}, {"job", ""},
                        {"job_count", own.size()}, {"job_no", 0},          {"sampling_step", 0},
                        {"sampling_steps", 0}};
  double progress = 0, left = 0;
  ordered_json picture;
  if (!own.empty()) {
    UnderWay& first = *own[0];
    const auto done = static_cast<double>(first.done);
    progress = done / static_cast<double>(first.steps);
    const double seconds = std::chrono::duration<double>(Clock::now() - first.since).count();
    left = done > 0 ? seconds * (1 - progress) / progress : 0;
    state["interrupted"] = first.interrupted.load();
    state["job"] = "txt2img";
    state["sampling_step"] = first.done.load();
    state["sampling_steps"] = first.steps;
    if (!skips) {
      first.picture_wanted = true;
      if (std::string made = first.picture(); !made.empty()) picture = std::move(made);
    }
  }
  return json_answer({{"progress", progress},
                      {"eta_relative", left},
                      {"state", state},
                      {"current_image", picture},
                      {"textinfo", nullptr}});
}

HttpResponse Api::sdapi_interrupt(const CallPtr& call) {
  for (const auto& one : drawings_.of(call->request.peer)) one->interrupted = true;
  return json_answer(ordered_json::object());
}

HttpResponse Api::sdapi_samplers(const CallPtr&) {
  auto all = ordered_json::array();
  for (const SamplerAlias& s : sampler_aliases())
    all.push_back(
        {{"name", s.name}, {"aliases", ordered_json::array({s.ours})}, {"options", ordered_json::object()}});
  return json_answer(all);
}

HttpResponse Api::sdapi_models(const CallPtr&) {
  auto all = ordered_json::array();
  for (const Served& s : models_.all()) {
    if (!s.service->model().diffusion()) continue;
    const std::string& hash = s.service->trained().description_hash;
    ordered_json one = {{"title", s.name}, {"model_name", s.name}};
    one["hash"] = hash.empty() ? ordered_json() : ordered_json(hash.substr(0, 10));
    one["sha256"] = hash.empty() ? ordered_json() : ordered_json(hash);
    one["filename"] = s.name;
    one["config"] = nullptr;
    all.push_back(one);
  }
  return json_answer(all);
}

// Which model draws where a request names none; of all there is to set it is the one thing that clients ask for.
HttpResponse Api::sdapi_options(const CallPtr&) {
  const Served first = models_.find("");
  ordered_json name;
  if (first.service->model().diffusion()) name = first.name;
  return json_answer({{"sd_model_checkpoint", name}});
}

}  // namespace lockstep::serve
