// SPDX-License-Identifier: Apache-2.0
// What a trained classifier takes pictures for:  classify RUN PICTURE...
#include <lockstep/launch/job/trained_model.h>
#include <lockstep/models/objectives/classification.h>
#include <lockstep/models/picture.h>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

using namespace lockstep;

int main(int argc, char** argv) try {
  if (argc < 3) {
    std::fputs("classify RUN PICTURE...\n", stderr);
    return 64;
  }
  const TrainedModel trained = open_trained(argv[1]);
  const ModelDescription& model = trained.description;
  const auto alone = make_self_communicator();  // this process: no mpirun
  const auto session = open_session(trained, {.largest_batch = 1}, *alone);
  std::vector<float> log_p(static_cast<size_t>(model.input.classes));
  for (int i = 2; i < argc; ++i) {
    const Image picture = read_picture(model, argv[i]);
    const InputTensor images = input_tensor(kImages, picture.pixels);
    const OutputTensor answer{"log_probabilities", log_p};
    session->run(kClassify, /*samples=*/1, {&images, 1}, {&answer, 1});
    const auto best = std::max_element(log_p.begin(), log_p.end()) - log_p.begin();
    std::printf("%s: %s, %.1f %%\n", argv[i], model.class_text(best).c_str(),
                100 * std::exp(log_p[static_cast<size_t>(best)]));
  }
} catch (const Error& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return e.code();
}
