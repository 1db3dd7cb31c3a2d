// SPDX-License-Identifier: Apache-2.0
// `--set KEY.PATH=VALUE` on the tree: adds the key or replaces it, and removes the key that excludes it.
#pragma once

#include <string>
#include <vector>

#include "launch/job/yaml_tree.h"

namespace lockstep::job {

// VALUE is YAML (flow syntax for lists and maps). Throws Exit::usage without KEY= and Exit::config for what
// is wrong with VALUE; keys are checked with the rest of the tree. A later override replaces an earlier one.
void apply_overrides(Node& root, const std::vector<std::string>& overrides);

// `lr_schedule: cosine` becomes {name: cosine}: everything after sees one form.
void expand_short_forms(Node& root);
// Takes a key out of the tree; a null node without source if it isn't there.
Node take_path(Node& root, std::string_view path);

}  // namespace lockstep::job
