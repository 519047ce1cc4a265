"""What is edited: text-video pairs, videos in and out, and the benchmark."""
