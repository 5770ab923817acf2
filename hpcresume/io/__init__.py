"""The filesystem: paths, durable files, and the one seam through which every state-changing call goes."""
