// SPDX-License-Identifier: Apache-2.0
// A picture of what a text says, by a trained painter or a StableDiffusionPipeline's folder:  draw FOLDER TEXT STEPS PNG
#include <lockstep/launch/job/trained_model.h>
#include <lockstep/models/diffusion/generate.h>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

using namespace lockstep;

int main(int argc, char** argv) try {
  if (argc != 5) {
    std::fputs("draw FOLDER TEXT STEPS PNG\n", stderr);
    return 64;
  }
  const TrainedModel trained = open_trained(argv[1]);
  if (!trained.tokenizer) {
    std::fputs("the model reads no text\n", stderr);
    return 78;
  }
  diffusion::GenerateRequest request =
      diffusion::default_request(trained.description, trained.tokenizer.get());
  request.count = 1;
  request.steps = std::atoi(argv[3]);
  request.seed = 1;
  const std::vector<std::string> prompts = {argv[2]};
  diffusion::set_prompts(request, *trained.tokenizer, prompts);
  const auto alone = make_self_communicator();  // this process: no mpirun
  const auto session = open_session(
      trained, {.largest_batch = diffusion::largest_batch(request, 1), .in_place = true}, *alone);
  const auto images = diffusion::generate(*session, trained.description.scheduler, request);
  write_png(argv[4], diffusion::pictures(images, trained.description.input)[0]);
} catch (const Error& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return e.code();
}
