// SPDX-License-Identifier: Apache-2.0
// The tokenizer of a model that reads text, held against its text encoder.
#pragma once

#include <memory>

#include "launch/job/job.h"
#include "models/model_description.h"
#include "runtime/text/clip_tokenizer.h"

namespace lockstep {

// The one that the job names; null where its model reads no text. Errors: no_input (66), data (65), config (78) at its
// key where it is not the text encoder's.
std::shared_ptr<const ClipTokenizer> open_tokenizer(const Job& job);
// FOLDER/tokenizer. Errors as above, and data (65) where it is not the one that the model was trained with.
std::shared_ptr<const ClipTokenizer> open_tokenizer(const ModelDescription& model, const std::string& folder);

}  // namespace lockstep
