# SPDX-License-Identifier: Apache-2.0
"""The commands that README, docs/ and CONTRIBUTING print: how the test runs each, in this order, or why it does not.

The working folder holds configs/ and tests/golden/digits as the repository does. RUN: (command as printed, how it is
shortened): words to add, or pairs to replace."""

SHORT = (
    "--set hyperparameters.epochs=1 --set inputs.training.limit=2000 --set inputs.test.limit=500 "
    "--set hyperparameters.lr_schedule.warmup_steps=2"
)
SHORT_DIFFUSION = (
    "--set hyperparameters.steps=4 --set hyperparameters.lr_schedule.warmup_steps=1 --set inputs.training.limit=200 "
    "--set inputs.test.limit=64 --set sampling.count=10 --set sampling.steps=2 --set sample_every=0"
)
FIT = "lockstep fit configs/mnist_cnn.yaml"
DDPM = "runs/ddpm-mnist-001"
PAINTER = "runs/painter-digits-001"
PROMPT = '--prompt "a small red seven at the top left on a blue background"'

RUN = [
    ("lockstep --version", ""),
    ("lockstep --help", ""),
    ("lockstep man > lockstep.1", ""),
    ("lockstep completion bash > completion", ""),
    ("lockstep kernels --op conv2d", ""),
    ("lockstep fit --help-keys", ""),
    ("lockstep check configs/mnist_cnn.yaml", ""),
    ("lockstep check configs/mnist_cnn.yaml --resolved", ""),
    ("lockstep check configs/mnist_layers.yaml", ""),
    ("lockstep plan configs/mnist_cnn.yaml", ""),
    ("lockstep plan configs/mnist_cnn.yaml --scale 2,8,64,512 --link 100Gb,5us,8", ""),
    (FIT, SHORT),
    (f"{FIT} --resume", SHORT),
    (f"{FIT} --resume --set instance_count=1", SHORT),
    (f"{FIT} --resume --retune", SHORT),
    (f"{FIT} --resume=auto", SHORT),
    ("lockstep evaluate runs/mnist-cnn-001", ""),
    ("lockstep predict runs/mnist-cnn-001 tests/golden/digits/test-0.png", ""),
    ("lockstep predict runs/mnist-cnn-001 tests/golden/digits/test-0.png tests/golden/digits/test-1.png --json", ""),
    (
        "lockstep predict runs/mnist-cnn-001/checkpoints/step-00002814 tests/golden/digits/test-0.png",
        [("step-00002814", "step-00000016")],
    ),
    ("lockstep evaluate runs/mnist-cnn-001 --data configs/data/mnist", ""),
    ("mpirun -n 2 lockstep evaluate runs/mnist-cnn-001", ""),
    ("lockstep plan runs/mnist-cnn-001", ""),
    (f"{FIT} --set hyperparameters.optimizer.lr=0.1", SHORT),
    ("lockstep report runs/mnist-cnn-001 runs/mnist-cnn-002", ""),
    (f"{FIT} --profile", SHORT),
    (f"{FIT} --trace trace.json", SHORT),
    (f"mpirun -n 2 {FIT}", SHORT),
    (f"mpirun -n 3 --oversubscribe {FIT} --set instance_count=3", SHORT),
    ("lockstep fit configs/ddpm_mnist.yaml", SHORT_DIFFUSION),
    (f"lockstep sample {DDPM} --count 64 --class 3 --out threes.png", [("--count 64", "--count 2")]),
    (f"lockstep sample {DDPM} --count 64 --class 3 --guidance 1.5 --out threes.png", [("--count 64", "--count 2")]),
    (f"lockstep sample {DDPM} --count 8 --precision bf16 --each samples", [("--count 8", "--count 2")]),
    (f"mpirun -n 2 lockstep sample {DDPM} --count 16", [("--count 16", "--count 2")]),
    (f"lockstep evaluate {DDPM}", ""),
    (f"lockstep evaluate {DDPM} --judge runs/mnist-cnn-001", "--count 20"),
    (f"mpirun -n 2 lockstep evaluate {DDPM} --judge runs/mnist-cnn-001 --guidance 1.5", "--count 20"),
    ("lockstep fit configs/painter_digits.yaml", SHORT_DIFFUSION),
    (f"lockstep sample {PAINTER} {PROMPT}", "--steps 2"),
    (f"lockstep sample {PAINTER} {PROMPT} --out seven.png", "--steps 2"),
    (
        f'lockstep sample {PAINTER} --prompt "a green two" --prompt "a pink nine" --negative-prompt "small" --each pictures',
        "--steps 2",
    ),
    (
        f"lockstep evaluate {PAINTER} --judge runs/mnist-cnn-001 --count 2000 --verdicts verdicts.jsonl",
        [("--count 2000", "--count 4")],
    ),
]

BUILDS = "builds the whole project; .ci/run runs it"
NETWORK = "downloads 170 MB; tests/launch/fetch_test.cpp runs the command against a server of its own"
CIFAR = "needs CIFAR-10, which is not in the repository"
HOSTS = "needs other machines; tests/launch/mpirun_test.cpp tests what mpirun is given"
EMBEDS = "tests/packaging/embedding_test.py does it with small models"
SERVES = "serves until it is stopped; tests/launch/serve_test.cpp asks it"
NOT_RUN = {
    "launch/quickstart": BUILDS,
    "tests/run": "runs this test",
    "tests/run --filter KernelCases": "runs tests",
    "tests/packaging/deb": "installs a Debian into a folder; needs root and a mirror",
    "cmake --preset release && ninja -C build/release": BUILDS,
    "cpack --config build/release/CPackConfig.cmake": "tests/packaging/deb runs it, installs the package and uses it",
    "lockstep data get cifar10 --to configs/data/cifar10": NETWORK,
    "lockstep fit configs/ddpm_cifar10.yaml": CIFAR,
    "lockstep sample runs/ddpm-cifar10-001 --count 64 --sampler ddpm --steps 1000": CIFAR,
    'lockstep fit configs/mnist_cnn.yaml --set instance_count=8 --set \'hosts=["node1:4", "node2:4"]\'': HOSTS,
    "lockstep fit configs/mnist_cnn.yaml --set instance_count=8 --set hostfile=cluster.txt": HOSTS,
    "sbatch --nodes=2 --ntasks-per-node=4 --wrap 'srun --mpi=pmix --kill-on-bad-exit=1 lockstep fit configs/mnist_cnn.yaml "
    "--set instance_count=8'": "needs Slurm; tests/runtime/comm/on_ranks_test.cpp tests what ranks read of it",
    "lockstep serve runs/mnist-cnn-001 --port 8080": SERVES,
    "lockstep bench serve http://127.0.0.1:8080 --clients 8 --seconds 20": "tests/launch/bench_serve_test.cpp runs it",
    "tar -C runs/mnist-cnn-001 -czf model.tar.gz .": "tests/launch/sagemaker_test.cpp packs and serves one",
    "curl --data-binary @tests/golden/digits/test-0.png -H 'Content-Type: image/png' localhost:8080/invocations": SERVES,
    "curl -d '{\"class\": \"3\", \"num_images_per_prompt\": 2, \"seed\": 5}' -H 'Content-Type: application/json' "
    "localhost:8080/invocations": SERVES,
    "curl -d '{\"prompt\": [\"a small red seven on a blue background\"], \"num_images_per_prompt\": 1}' -H 'Content-Type: "
    "application/json' localhost:8080/invocations": SERVES,
    "curl -d '{\"prompt\": \"a small red seven on a blue background\", \"seed\": 5}' -H 'Content-Type: application/json' "
    "localhost:8080/v1/images/generations": "tests/launch/serve_apis_test.cpp asks so",
    "pip install ./launch/python": "fetches setuptools; tests/launch/python_client_test.py installs it with what is here",
    "from lockstep import Estimator": "tests/launch/python_client_test.py trains and asks small models so",
    "from lockstep import decode_base64_image, deploy": "tests/launch/python_client_test.py draws so",
    "bench/peers/install": "installs PyTorch from the network",
    "bench/run": "takes hours, and needs PyTorch; .ci/run runs bench/run --quick",
    "bench/run --only unet": "takes an hour, and needs PyTorch; .ci/run runs bench/run --quick",
    "build/release/bench/kernel_bench configs/mnist_cnn.yaml": "takes minutes; bench/run --quick runs it",
    "bench/gpu": "needs a GPU; tests/bench/gpu_test.py tests its parts",
    "lockstep plan configs/mnist_cnn.yaml --device cuda": "needs a build with CUDA",
    "cmake --install build/release --prefix ~/.local": EMBEDS,
    "cmake -S docs/embedding -B build/embedding -DCMAKE_PREFIX_PATH=$HOME/.local": EMBEDS,
    "cmake --build build/embedding": EMBEDS,
    "build/embedding/classify runs/mnist-cnn-001 tests/golden/digits/test-0.png": EMBEDS,
    "const TrainedModel trained = open_trained(argv[1]);": EMBEDS,
    "from diffusers import DDPMPipeline": "needs diffusers; tests/golden/check_diffusers.py does it",
}
