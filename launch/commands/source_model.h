// SPDX-License-Identifier: Apache-2.0
// The model whose weights a job starts from (model.init_from), held against the job.
#pragma once

#include <string>
#include <vector>

#include "launch/job/job.h"
#include "runtime/checkpoint/safetensors.h"

namespace lockstep {

// What to warn of, where the source says of itself (model.json, a folder's scheduler) that it was trained otherwise: its
// classes had other names or another order, which a job for new classes may want; its inputs were normalised otherwise; its
// noise was another. Tensors are compared elsewhere. Errors: config (78) for another tokenizer, under which no row of the text
// encoder's table means what it did; data (65) for a damaged model.json.
std::vector<std::string> source_remarks(const Job& job, const DatasetShape& training,
                                        const SafetensorsFile& weights);

}  // namespace lockstep
