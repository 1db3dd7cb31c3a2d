// SPDX-License-Identifier: Apache-2.0
// CIFAR-10, binary version (A. Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html): files of 10,000
// records of a label byte and 3,072 bytes, the red, green and blue planes of 32x32.
#pragma once

#include <string>
#include <vector>

#include "runtime/data/dataset.h"

namespace lockstep {

// folder, or its cifar-10-batches-bin. Error no_input (66) where a file is missing.
std::vector<std::string> find_cifar10(const std::string& folder, bool test);
ImageSet read_cifar10(const std::vector<std::string>& files);
// Whether the files are as long as they must be. Reads them where they are compressed. Errors: data (65).
void check_cifar10_sizes(const std::vector<std::string>& files);
DatasetShape probe_cifar10(const std::vector<std::string>& files);

}  // namespace lockstep
