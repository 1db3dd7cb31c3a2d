// SPDX-License-Identifier: Apache-2.0
// A trained model by its folder: a run, a checkpoint, or a diffusers folder.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "models/inference_session.h"
#include "runtime/text/clip_tokenizer.h"

namespace lockstep {

struct TrainedModel {
  std::string folder;  // as the user named it
  std::string run;     // the run whose job.yaml is there; empty: none
  ModelDescription description;
  std::string description_hash;                    // SHA-256 of its model.json; empty: there is none
  std::shared_ptr<const SafetensorsFile> weights;  // open_session() awaits the verdict on their hashes
  std::shared_ptr<const ClipTokenizer> tokenizer;  // of a model that reads text; else null
};

// By the model.json beside the weights; of runs that have none by their job and its data or, where these
// are gone, its plan.json; else by the files of a diffusers folder. `say` is told what is odd about the folder, a line each;
// null: nobody is. Errors: no_input (66), data (65), config (78).
TrainedModel open_trained(const std::string& folder, const std::function<void(const std::string&)>& say = {});

// The folder of a model by its weights: that of the file, or the one around unet/.
std::string model_home(const std::string& weights);

// Ready to be asked, on the CPU, with this rank's share of the cores, which `options.kernels` gets from here. Collective.
// `model` outlives the session where options.in_place.
std::unique_ptr<InferenceSession> open_session(const TrainedModel& model, InferenceOptions options,
                                               Communicator& comm);

// Joins the ranks that a launcher started; one rank alone where there was none.
std::unique_ptr<Communicator> launched_communicator();

}  // namespace lockstep
