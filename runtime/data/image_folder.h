// A folder of PNG and JPEG files with a folder per class, as torchvision's ImageFolder reads it: classes in
// the order of their names, within a class the files in the order of their paths.
#pragma once

#include <string>
#include <vector>

#include "runtime/data/dataset.h"

namespace lockstep {

struct ImageFolder {
  std::vector<std::string> classes;
  std::vector<std::string> files;
  std::vector<int32_t> labels;  // one a file
};

// Where train/ or test/ stand below `path`, the one that `test` says is read. Names that begin with a dot are
// passed over; any other file within a class must be an image, so that none is left out in silence. Error
// no_input (66): the folder or its class folders are missing; data (65): a class without images.
ImageFolder find_image_folder(const std::string& path, bool test);
// One channel if every image is grey, else three. Error data (65) naming the first image of another size.
ImageSet read_image_folder(const ImageFolder& folder);
DatasetShape probe_image_folder(const ImageFolder& folder);

}  // namespace lockstep
