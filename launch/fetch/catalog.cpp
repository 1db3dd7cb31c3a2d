// SPDX-License-Identifier: Apache-2.0
#include "launch/fetch/catalog.h"

namespace lockstep {

const std::vector<RemoteSet>& remote_sets() {
  static const std::vector<RemoteSet> sets = {
      {"mnist",
       {"https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/", "http://yann.lecun.com/exdb/mnist/"},
       {{"train-images-idx3-ubyte.gz", "6bbc9ace898e44ae57da46a324031adb", true},
        {"train-labels-idx1-ubyte.gz", "a25bea736e30d166cdddb491f175f624", true},
        {"t10k-images-idx3-ubyte.gz", "2646ac647ad5339dbf082846283269ea", true},
        {"t10k-labels-idx1-ubyte.gz", "27ae3e4e09519cfbb04c329615203637", true}},
       ""},
      {"fashion_mnist",
       {"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"},
       {{"train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", false},
        {"train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe", false},
        {"t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79", false},
        {"t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310", false}},
       ""},
      {"cifar10",
       {"https://www.cs.toronto.edu/~kriz/"},
       {{"cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", false}},
       "cifar-10-batches-bin"}};
  return sets;
}

}  // namespace lockstep
