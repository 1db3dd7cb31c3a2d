// SPDX-License-Identifier: Apache-2.0
// Requests for a model's answer, in whichever API's words.
#include <algorithm>

#include "launch/serve/body.h"
#include "launch/serve/call.h"
#include "launch/serve/parts.h"

namespace lockstep::serve {

using nlohmann::ordered_json;

HttpResponse Api::invoke_or_lines(const CallPtr& call) {
  if (!is_json_lines(call->request)) return invoke(call);
  enter(*call);
  return invoke_lines(call);
}

HttpResponse Api::invoke_lines(const CallPtr& call) {
  auto requests = requests_in_lines(call->request, models_.find("").service->limits().waiting);
  const auto replies = replies_in_lines(
      requests.size(), [this, call](HttpResponse whole) { respond(*call, std::move(whole)); },
      [reply = call->reply] { return reply->gone(); });
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto line = std::make_shared<Call>();
    line->request = std::move(requests[i]);
    line->reply = replies[i];
    line->name = call->name;
    line->part = true;
    try {
      invoke(line);
    } catch (const Refusal& r) {
      refuse(*line, r);
    }
    call->version = line->version;
  }
  return {0, "", ""};
}

HttpResponse Api::invoke(const CallPtr& call) {
  if (!call->part) enter(*call);
  const Dialect& dialect = call->dialect();
  if (call->request.header("accept").empty()) call->request.headers["accept"] = options_.accept;
  nlohmann::json body = in_our_words(dialect, read_json(call->request));
  const std::string named = named_model(body);
  if (!named.empty() && !call->name.empty() && named != call->name)
    throw Refusal{400, "is not the one of the path", "model"};
  const Served served = models_.find(named.empty() ? call->name : named);
  if (!served.service) {
    if (named.empty()) throw Refusal{404, "no model of this name is served"};
    throw Refusal{400, "is no model that is served", "model"};
  }
  Service& service = *served.service;
  call->version = served.version();
  std::unique_ptr<Job> job;
  if (service.model().diffusion()) {
    fit_to_model(dialect, service, body);
    job = draw(call, body, service);
  } else if (&dialect == &kOwn) {
    job = classify(call, body, service);
  } else {
    throw Refusal{400, "draws no pictures", "model"};
  }
  job->deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                     std::chrono::duration<double>(service.limits().seconds));
  job->gone = [reply = call->reply] { return reply->gone(); };
  job->refused = [this, call](const Refusal& r) { refuse(*call, r); };
  service.take(std::move(job));
  return {0, "", ""};
}

std::unique_ptr<Job> Api::classify(const CallPtr& call, const nlohmann::json& body, const Service& service) {
  auto job = std::make_unique<ClassifyJob>();
  const bool several = read_pictures(call->request, body, service.limits(), job->pictures);
  job->done = [this, call, several](const std::vector<Scores>& scores) {
    auto answers = ordered_json::array();
    for (const Scores& s : scores) {
      ordered_json p = ordered_json::object();
      for (const auto& [name, value] : s.probabilities) p[name] = value;
      answers.push_back({{"class", s.best}, {"probabilities", p}});
    }
    respond(*call, json_answer(several ? ordered_json{{"predictions", answers}} : answers[0]));
  };
  return job;
}

namespace {

std::string encoded(const Image& image, bool jpeg) { return jpeg ? encode_jpeg(image) : encode_png(image); }

std::vector<std::string> in_base64(const std::vector<Image>& images, bool jpeg) {
  std::vector<std::string> all;
  for (const Image& image : images) all.push_back(base64(encoded(image, jpeg)));
  return all;
}

// How many of `most` pictures on their way there are after so many of all evaluations, evenly between the first and the last.
int64_t partials_by(int64_t evaluation, int64_t evaluations, int64_t most) {
  return std::min(most, evaluation * (most + 1) / evaluations);
}

}  // namespace

std::unique_ptr<Job> Api::draw(const CallPtr& call, const nlohmann::json& asked, const Service& service) {
  const DrawBody body = read_draw_request(call->request, asked, service);
  const Dialect& dialect = call->dialect();
  if (body.stream && call->part) throw Refusal{400, "is for a request alone", "stream"};
  if (body.stream && dialect.one_picture_streams && body.request.count != 1)
    throw Refusal{400, "is 1 where the answer is a stream", "num_images_per_prompt"};
  const auto under_way =
      &dialect == &kAutomatic1111 ? drawings_.begin(call->request.peer, body.evaluations) : nullptr;
  const auto drawn = [call, body, asked](const std::vector<Image>& images) {
    return Drawn{body, asked, call->version, in_base64(images, body.jpeg)};
  };
  auto job = std::make_unique<DrawJob>();
  job->request = body.request;
  job->evaluations = body.evaluations;
  job->size = body.size;
  job->pixels = static_cast<double>(body.size.height * body.size.width) /
                static_cast<double>(service.sizes()[0].height * service.sizes()[0].width);
  if (body.stream) {
    struct Sketches {
      int64_t evaluation = 0, partials = 0;
    };
    const auto so_far = std::make_shared<Sketches>();
    const auto tell = [this, call, drawn, so_far, &dialect](const std::vector<Image>& images) {
      Drawn d = drawn(images);
      d.evaluation = so_far->evaluation, d.partial = so_far->partials - 1;
      send_event(*call, dialect.progress(d));
    };
    // A picture that is due goes with the progress.
    job->at = [call, body, so_far, tell](int64_t evaluation) {
      so_far->evaluation = evaluation;
      const int64_t due = partials_by(evaluation, body.evaluations, body.partial_images);
      if (due > so_far->partials && !call->events->behind()) {
        ++so_far->partials;
        return true;
      }
      tell({});
      return false;
    };
    job->preview = tell;
  }
  if (under_way) {
    job->at = [under_way](int64_t evaluation) {
      under_way->done = evaluation;
      return under_way->picture_wanted.exchange(false);
    };
    job->preview = [under_way](const std::vector<Image>& images) {
      under_way->set_picture(base64(encode_png(images[0])));
    };
    job->interrupted = [under_way] { return under_way->interrupted.load(); };
  }
  job->done = [this, call, drawn, body, &dialect](const std::vector<Image>& images) {
    if (body.stream) return send_event(*call, dialect.completed(drawn(images)), true);
    HttpResponse r = body.raw ? HttpResponse{200, std::string("image/") + (body.jpeg ? "jpeg" : "png"),
                                             encoded(images[0], body.jpeg)}
                              : json_answer(dialect.answer(drawn(images)));
    r.headers.emplace_back("X-Seed", std::to_string(body.request.seed));
    respond(*call, std::move(r));
  };
  return job;
}

}  // namespace lockstep::serve
