// SPDX-License-Identifier: Apache-2.0
// `stop`: when training ends before its last step.
#include "launch/job/keys.h"

namespace lockstep::job {

#define STOP_FIELD(member) [](void* object) -> Slot { return &static_cast<Job*>(object)->stop.member; }

Table stop_keys() {
  const When metric = {"stop.metric", {}};
  return {
      {.path = "stop.metric",
       .slot = STOP_FIELD(metric),
       .help =
           "Training ends before its last step by this: where it has got to `at`, or does not get better any "
           "more "
           "(patience). By test_loss or test_accuracy the test at the end is no held-out number any more.",
       .example = "validation_loss",
       .choices = {"validation_loss", "validation_accuracy", "test_loss", "test_accuracy"},
       .absent = "training goes on to its end"},
      {.path = "stop.at",
       .slot = STOP_FIELD(at),
       .help = "Stop at a loss of at most that, or an accuracy (0 to 1) of at least that. Either this or "
               "patience.",
       .example = "0.98",
       .range = {0, 1e6},
       .absent = "patience",
       .when = metric},
      {.path = "stop.patience",
       .slot = STOP_FIELD(patience),
       .help = "Stop after so many looks in a row of which none was better than the best one before. Either "
               "this or at.",
       .example = "3",
       .range = {1, 1e6},
       .absent = "at",
       .when = metric},
      {.path = "stop.min_delta",
       .slot = STOP_FIELD(min_delta),
       .help = "What is better by no more than that counts as no better.",
       .example = "0.001",
       .range = {0, 1e6},
       .when = {"stop.patience", {}}},
      {.path = "stop.every_steps",
       .slot = STOP_FIELD(every_steps),
       .help = "A look every so many steps. Not together with every_epochs.",
       .example = "100",
       .range = {1, 1e12},
       .absent = "every_epochs",
       .when = metric},
      {.path = "stop.every_epochs",
       .slot = STOP_FIELD(every_epochs),
       .help = "A look every so many epochs. Not together with every_steps.",
       .example = "2",
       .range = {1, 1e6},
       .absent = "1, but with every_steps",
       .when = metric},
  };
}

}  // namespace lockstep::job
